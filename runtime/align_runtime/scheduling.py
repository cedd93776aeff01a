"""Scheduling: how inputs are split into batches, and how many runs share a CPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import Generic, TypeVar

import numpy as np

from align_runtime.devices import backend_of
from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import shortened
from align_runtime.processors import available_cores

MAX_STREAMS = 1024
MAX_BATCH = 1 << 20  # inputs of one run; what is larger has no memory anywhere

T = TypeVar("T")


def stream_count(device: str, threads: int | None, streams: int | None) -> int:
    """The number of streams: single-threaded runs side by side. With 1, every run has all threads.

    Args:
        device: a GPU has no streams.
        threads: of one run; None for all cores.
        streams: what the caller asks for; None for one per thread on a CPU, and 1 on a GPU.

    Raises:
        ConfigurationError: `streams` is out of range, or above 1 on a GPU.
    """
    on_cpu = backend_of(device).on_cpu
    if streams is None:
        return (threads or available_cores()) if on_cpu else 1
    if type(streams) is not int or not 1 <= streams <= MAX_STREAMS:
        raise ConfigurationError(
            f"streams is {shortened(streams)}; expected 1 to {MAX_STREAMS}, or None for one per thread"
        )
    if streams > 1 and not on_cpu:
        raise ConfigurationError(f"streams is {streams}, but {device} has none; leave streams out")
    return streams


def check_batch_size(batch_size: int | None) -> None:
    """Raises ConfigurationError unless `batch_size` is None or an integer from 1 to `MAX_BATCH`."""
    if batch_size is not None and (type(batch_size) is not int or not 1 <= batch_size <= MAX_BATCH):
        raise ConfigurationError(
            f"batch_size is {shortened(batch_size)}; expected an integer from 1 to {MAX_BATCH}, or None"
        )


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one possibly shorter. Items are read only when their list is due."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


class Source(Generic[T]):
    """The items of a caller's iterable with their positions, read lazily in the thread that iterates.

    An error of the iterable ends the items; `check` raises it, so that what came before it can be delivered first.
    """

    def __init__(self, items: Iterable[T]) -> None:
        self._items = enumerate(items)
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[tuple[int, T]]:
        try:
            yield from self._items
        except Exception as error:
            self._error = error

    def check(self) -> None:
        """Raises the error that ended the items, if there was one."""
        if self._error is not None:
            raise self._error


def length_batches(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices of texts in batches of at most `size`, sorted by length.

    A batch is padded to its longest text, and padding costs as much as text: texts of similar length belong together.
    """
    return list(batches(_by_length(lengths), size))


def token_batches(lengths: Sequence[int], size: int, streams: int) -> list[list[int]]:
    """Indices of texts, sorted by length, in a multiple of `streams` batches with about the same number of tokens.

    Parallel streams then finish at about the same time. A batch has at most `size` texts on average.
    """
    order = _by_length(lengths)
    count = streams * -(-len(order) // (size * streams))
    tokens = np.cumsum([lengths[index] for index in order])
    ends = np.searchsorted(tokens, tokens[-1] * np.arange(1, count) / count, side="right")
    bounds = [0, *ends.tolist(), len(order)]
    return [order[start:end] for start, end in pairwise(bounds) if start < end]


def _by_length(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda index: lengths[index])
