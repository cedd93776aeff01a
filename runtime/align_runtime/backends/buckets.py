"""Sizes that a GPU runs in: a graph is recorded for one shape, so inputs are filled up to one of a few.

Copies to a GPU go by size, so inputs are compared with what the graph takes before: bytes of another type would be read
as something else.
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
    """Rows of an input that run at once, in a bucket of `batch` rows."""

    rows: slice
    batch: int


@dataclass(frozen=True)
class Buckets:
    """Batches, and lengths of texts; no lengths for images. Both ascending."""

    batches: tuple[int, ...]
    lengths: tuple[int, ...] = ()

    def pieces(self, count: int) -> Iterator[Piece]:
        """`count` rows in pieces: full ones of the largest batch, then the smallest that holds the rest.

        One larger batch instead of several exact ones: towers of hundreds of small kernels take about as long for one
        row as for eight, because the GPU waits for launches.
        """
        largest = self.batches[-1]
        for start in range(0, count, largest):
            rest = min(count - start, largest)
            batch = next(size for size in self.batches if size >= rest)
            yield Piece(slice(start, start + rest), batch)

    def length(self, tokens: int) -> int:
        """The length that texts of `tokens` are filled up to.

        Raises:
            InputError: longer than all.
        """
        for length in self.lengths:
            if length >= tokens:
                return length
        raise InputError(
            f"a text of {tokens} tokens does not fit; this model was set up for {self.lengths[-1]} at most"
        )


Takes = Mapping[str, tuple[np.dtype[Any], tuple[int | str, ...]]]  # dtype and shape by name; free dimensions have names


def check_inputs(inputs: Mapping[str, NDArray[Any]], takes: Takes) -> None:
    """Raises InputError unless `inputs` are exactly what the graph takes, equal in its free dimensions."""
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
    """Whether `sizes` are those of `shape`; free dimensions get their size in `free` when they are first met."""
    wanted = [
        free.setdefault(name, size) if isinstance(name, str) else name for size, name in zip(sizes, shape, strict=True)
    ]
    return list(sizes) == wanted


def row_count(inputs: Mapping[str, NDArray[Any]]) -> int:
    """Rows of a batch."""
    return len(next(iter(inputs.values())))


def default_lengths(longest: int) -> tuple[int, ...]:
    """Lengths for texts of up to `longest` tokens."""
    return (*(length for length in LENGTHS if length < longest), longest)
