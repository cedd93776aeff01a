"""What a graph answers is checked before it is passed on as embeddings.

The sha256 of a file shows that it is the exported one, not that it computes embeddings: a bundle from a stranger gives
the hashes of itself, and a GPU may fail without an error. So every answer is checked: type, rows, width, and that each
row is finite and of unit length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_runtime.backends.buckets import row_count
from align_runtime.bundle import Bundle
from align_runtime.devices import BACKENDS
from align_runtime.errors import AlignError, BundleError, DeviceError
from align_runtime.graph_entry import Graph

# Graphs of every precision normalize in FP32: rows of FP32, FP16 and INT8 graphs are 1 ± 3e-7 long. Rounding all
# components of a row to FP16, as another program may do, changes its length by up to 2⁻¹¹ = 4.9e-4.
UNIT_TOLERANCE = 1e-3
SHORTEST, LONGEST = (1 - UNIT_TOLERANCE) ** 2, (1 + UNIT_TOLERANCE) ** 2  # squares of lengths


def checked_shape(values: object, rows: int, dim: int, subject: str) -> NDArray[np.float32]:
    """`values`, which must be a float32 array (rows, dim).

    Args:
        subject: the graph that answered, for the message.

    Raises:
        BundleError: it is not.
    """
    if isinstance(values, np.ndarray):
        if values.dtype == np.float32 and values.shape == (rows, dim):
            return values
        given = f"{values.dtype} {values.shape}"
    else:
        given = type(values).__name__
    raise BundleError(
        f"{subject} returns {given}, expected float32 {(rows, dim)}; it is not a graph of this bundle, export the "
        "checkpoint again"
    )


def checked_embeddings(
    values: object, rows: int, dim: int, subject: str, error: type[AlignError] = BundleError
) -> NDArray[np.float32]:
    """`values`, which must be embeddings: float32 (rows, dim), every row finite and of unit length.

    Args:
        subject: the graph that answered and where, for the message.

    Raises:
        BundleError: another type or shape.
        `error`: a row with NaN or infinite values, or of another length.
    """
    embeds = checked_shape(values, rows, dim, subject)
    squares = np.einsum("ij,ij->i", embeds, embeds)
    if rows == 0 or (squares.min() >= SHORTEST and squares.max() <= LONGEST):  # NaN is on neither side of a bound
        return embeds
    row = int(np.argmin((squares >= SHORTEST) & (squares <= LONGEST)))
    length = float(np.linalg.norm(embeds[row].astype(np.float64)))
    what = f"of length {length:.4g}" if np.isfinite(length) else "with NaN or infinite values"
    raise error(
        f"{subject} returns a row {what} (row {row} of {rows}), expected finite rows of unit length; check the bundle "
        "with align-verify, or take another precision or device"
    )


def check_answer(
    bundle: Bundle, graph: Graph, device: str, inputs: Mapping[str, NDArray[Any]], answer: object
) -> NDArray[np.float32]:
    """`answer`, which must be the embeddings of `inputs` by `graph` of `bundle` on `device`, or on a server.

    Raises:
        BundleError, DeviceError: as `checked_embeddings`; a row that is wrong is the file's fault on a CPU, and may be
            the device's elsewhere.
    """
    backend = BACKENDS.get(device.partition(":")[0])
    return checked_embeddings(
        answer,
        row_count(inputs),
        bundle.manifest.model.embedding_dim,
        f"{graph.file} on {device}",
        BundleError if backend is not None and backend.on_cpu else DeviceError,
    )
