"""Embeddings on a Ray cluster: `Embedder` for ``Dataset.map_batches``, and `embed_dataset`, which calls it well.

::

    dataset = ray.data.read_parquet("captions/")
    embedded = embed_dataset(dataset, "build/align-base", "caption", tower="text", actors=4)
    embedded.write_parquet("embeddings/")        # the columns of before, `embedding` and `error`

An item that cannot be embedded is a row with a null embedding and the reason in `error`: an exception would end the
job, and Ray runs no batch again because of one. Actors, workers and nodes that die are replaced, and their batches run
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

import align_runtime
from align_runtime.errors import BackendUnavailableError, ConfigurationError
from align_runtime.foreign_text import shortened
from align_runtime.image_options import DEFAULT_MAX_PIXELS
from align_runtime.model import TowerName

try:
    import pyarrow as pa
    import ray
    import ray.data
except ImportError as error:
    raise BackendUnavailableError(
        f"ray[data] cannot be imported ({error}); install it with: pip install 'align-onnx[ray]'"
    ) from None

if TYPE_CHECKING:
    from ray.data import Dataset

ElementType = Literal["float32", "float16"]
BATCH_SIZE = 64


class Embedder:
    """One model in one actor, called with batches in the format ``"pyarrow"``."""

    def __init__(
        self,
        bundle: str,
        column: str,
        *,
        tower: TowerName,
        output: str = "embedding",
        error: str = "error",
        keep: Sequence[str] | None = None,
        dtype: ElementType = "float32",
        precision: str = "fp32",
        device: str = "cpu",
        threads: int | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> None:
        """Loads `bundle`, which must be at the same path, or in the hub's cache, on every node.

        Args:
            column: of texts; or of images: encoded (binary), paths on the node (string), or arrays as
                ``ray.data.read_images`` makes them.
            tower: ``"text"`` or ``"vision"``; the other one is not loaded.
            output: column of the embeddings, fixed_size_list<dtype>[dim] with unit rows; null where there is none.
            error: column of the reasons, string; null where there is an embedding.
            keep: columns that are kept; None for all but a column of images.
            dtype: of the values of `output`.
            precision, device, max_pixels: as in `align_runtime.load`.
            threads: likewise; None for the CPUs of the actor.

        Raises:
            ConfigurationError: an option is unknown or out of range, or as `align_runtime.load`.
            BundleError: as `align_runtime.load`.
        """
        if dtype not in ("float32", "float16"):
            raise ConfigurationError(f"dtype is {shortened(dtype)}; expected 'float32' or 'float16'")
        self._model = align_runtime.load(
            bundle,
            towers=(tower,),
            precision=precision,
            device=device,
            threads=actor_cores() if threads is None and device == "cpu" else threads,
            max_pixels=max_pixels,
        )
        self._model.warmup()
        self._embed = self._model.embed_texts if tower == "text" else self._model.embed_images
        self._column, self._output, self._error = column, output, error
        self._drops = tower == "vision"
        self._keep = keep
        self._dtype = np.dtype(dtype)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The kept columns of `batch`, `output` and `error`, row by row.

        Raises:
            ConfigurationError: another format, or columns that are missing or would be replaced.
        """
        if not isinstance(batch, pa.Table):
            raise ConfigurationError(
                f"the batch is a {type(batch).__name__}; call map_batches with batch_format='pyarrow'"
            )
        kept = self._kept(batch.column_names)
        rows = self._embed(_items(batch.column(self._column)), on_error="skip")
        reasons: list[str | None] = [None] * len(batch)
        for failed in rows.errors:
            reasons[failed.index or 0] = failed.message
        columns = {name: batch.column(name) for name in kept}
        columns[self._output] = self._embeddings(rows, len(batch))
        columns[self._error] = pa.array(reasons, pa.string())
        return pa.table(columns)

    def _kept(self, names: Sequence[str]) -> list[str]:
        kept = (
            [name for name in names if not (self._drops and name == self._column)] if self._keep is None else self._keep
        )
        missing = [name for name in (self._column, *kept) if name not in names]
        if missing:
            raise ConfigurationError(f"there is no column {shortened(missing[0])}; there are {shortened(list(names))}")
        taken = {self._output, self._error} & set(kept)
        if taken or self._output == self._error:
            raise ConfigurationError(
                f"the column {shortened(self._output if not taken else min(taken))} is there already; name another "
                "one with output= or error="
            )
        return list(kept)

    def _embeddings(self, rows: align_runtime.EmbeddedRows, count: int) -> pa.FixedSizeListArray:
        values = np.zeros((count, self._model.info.embedding_dim), self._dtype)
        values[rows.indices] = rows.embeddings
        missing = np.ones(count, bool)
        missing[rows.indices] = False
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1], mask=pa.array(missing))


def embed_dataset(
    dataset: Dataset,
    bundle: str,
    column: str,
    *,
    tower: TowerName,
    actors: int | tuple[int, int] = 1,
    cpus: int = 1,
    gpus: float = 0,
    batch_size: int = BATCH_SIZE,
    **options: Any,
) -> Dataset:
    """`dataset` with embeddings of `column`: `Embedder` in a pool of actors. Lazy, as everything of Ray Data.

    Args:
        actors: their number, or (least, most) for a pool that grows and shrinks.
        cpus: of each actor, which are the threads of its model; a model on a GPU has one.
        gpus: of each actor; above 0, `device` is ``"cuda"`` unless `options` name another.
        batch_size: rows of one call.
        options: of `Embedder`.

    Raises:
        ConfigurationError: a number is out of range.
    """
    least, most = actors if isinstance(actors, tuple) else (actors, actors)
    if not 1 <= least <= most or batch_size < 1 or cpus < 1 or gpus < 0:
        raise ConfigurationError(
            f"actors {actors}, cpus {cpus}, gpus {gpus}, batch_size {batch_size}; expected numbers of 1 or more, and "
            "gpus of 0 or more"
        )
    if gpus:
        options.setdefault("device", "cuda")
    resources: dict[str, Any] = {"num_gpus": gpus} if gpus else {"num_cpus": cpus}
    return dataset.map_batches(
        Embedder,
        fn_constructor_kwargs={"bundle": str(bundle), "column": column, "tower": tower, **options},
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=least, max_size=most),
        udf_modifying_row_count=False,
        **resources,
    )


def actor_cores() -> int | None:
    """The CPUs that Ray gave this actor; None outside of one."""
    if not ray.is_initialized():
        return None
    resources: dict[str, float] = ray.get_runtime_context().get_assigned_resources()  # type: ignore[no-untyped-call]
    return max(1, int(resources.get("CPU", 1)))


def _items(column: pa.ChunkedArray) -> list[Any]:
    """The values of `column`; images of ``read_images`` as arrays."""
    if isinstance(column.type, pa.ExtensionType):
        found: list[NDArray[Any]] = []
        for chunk in column.chunks:
            found += list(chunk.to_numpy(zero_copy_only=False))
        return found
    return list(column.to_pylist())
