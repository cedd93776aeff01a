"""Sizes that a GPU runs in: a graph is recorded for one shape, so inputs are filled up to one of a few."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

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
    """Batches, and lengths of texts; no lengths for pictures. Both ascending."""

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


def row_count(inputs: Mapping[str, NDArray[Any]]) -> int:
    """Rows of a batch."""
    return len(next(iter(inputs.values())))


def default_lengths(longest: int) -> tuple[int, ...]:
    """Lengths for texts of up to `longest` tokens."""
    return (*(length for length in LENGTHS if length < longest), longest)
