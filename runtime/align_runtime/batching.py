"""How inputs are divided into runs of a graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """`items` in lists of `size`, the last one shorter. No more is read than is handed out."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def length_batches(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices of texts, sorted by length, in batches of `size`.

    Texts of like length are side by side: a batch is padded to its longest, and padding costs as much as text.
    """
    return list(batches(_by_length(lengths), size))


def token_batches(lengths: Sequence[int], size: int, streams: int) -> list[list[int]]:
    """Indices of texts, sorted by length, in a multiple of `streams` batches that hold about as many tokens each.

    Streams that work side by side are then done at about the same time. A batch has `size` texts on average, or less.
    """
    order = _by_length(lengths)
    count = streams * -(-len(order) // (size * streams))
    tokens = np.cumsum([lengths[index] for index in order])
    ends = np.searchsorted(tokens, tokens[-1] * np.arange(1, count) / count, side="right")
    starts = [0, *ends.tolist(), len(order)]
    parts = [order[start:end] for start, end in pairwise(starts)]
    return [part for part in parts if part]


def _by_length(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda index: lengths[index])
