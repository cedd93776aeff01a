"""Buckets: the few shapes that a GPU runs. A CUDA graph has one shape, so inputs are padded to the next bucket.

Copies to a GPU are raw bytes, so dtypes and shapes of inputs are checked first: other types would be misread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_runtime.errors import InputError

BATCHES = (1, 8, 32)
LENGTHS = (8, 16, 32, 64)


@dataclass(frozen=True)
class Piece:
    """Rows of an input that run together in a bucket of `batch` rows."""

    rows: slice
    batch: int


@dataclass(frozen=True)
class Buckets:
    """Batch sizes, and lengths of texts in tokens (none for images), both in ascending order."""

    batches: tuple[int, ...]
    lengths: tuple[int, ...] = ()

    def pieces(self, count: int) -> Iterator[Piece]:
        """Splits `count` rows into full batches of the largest size, and the smallest batch that holds the rest.

        The rest runs as one padded batch, not as several exact ones: a tower of hundreds of small kernels is bound by
        their launches and takes about as long for one row as for eight.
        """
        largest = self.batches[-1]
        for start in range(0, count, largest):
            rest = min(count - start, largest)
            batch = next(size for size in self.batches if size >= rest)
            yield Piece(slice(start, start + rest), batch)

    def length(self, tokens: int) -> int:
        """The length that texts of `tokens` tokens are padded to.

        Raises:
            InputError: `tokens` exceeds every length.
        """
        for length in self.lengths:
            if length >= tokens:
                return length
        raise InputError(
            f"a text of {tokens} tokens does not fit; this model was set up for {self.lengths[-1]} at most"
        )


Takes = Mapping[str, tuple[np.dtype[Any], tuple[int | str, ...]]]  # dtype and shape by name; free dimensions have names


def check_inputs(inputs: Mapping[str, NDArray[Any]], takes: Takes) -> None:
    """Raises InputError unless `inputs` have the names, dtypes and shapes that the graph takes.

    A free dimension has the same size in every input.
    """
    free: dict[str, int] = {}
    for name, (dtype, shape) in takes.items():
        values = inputs.get(name)
        if values is None or values.dtype != dtype or values.ndim != len(shape) or not _fits(values.shape, shape, free):
            given = "missing" if values is None else f"{values.dtype} {values.shape}"
            known = "".join(f", {key} {size}" for key, size in free.items() if values is not None)
            raise InputError(f"{name} is {given}; the graph takes {dtype} {shape}{known}")
    unknown = sorted(inputs.keys() - takes.keys())
    if unknown:
        raise InputError(f"the graph has no inputs {', '.join(unknown)}; it takes {', '.join(takes)}")


def _fits(sizes: tuple[int, ...], shape: tuple[int | str, ...], free: dict[str, int]) -> bool:
    """Whether `sizes` match `shape`. The first size of a free dimension is stored in `free`."""
    wanted = [
        free.setdefault(name, size) if isinstance(name, str) else name for size, name in zip(sizes, shape, strict=True)
    ]
    return list(sizes) == wanted


def row_count(inputs: Mapping[str, NDArray[Any]]) -> int:
    """The number of rows in a batch."""
    return len(next(iter(inputs.values())))


def default_lengths(longest: int) -> tuple[int, ...]:
    """The lengths of buckets for texts of up to `longest` tokens."""
    return (*(length for length in LENGTHS if length < longest), longest)
