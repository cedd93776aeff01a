"""How inputs are divided into runs of a graph, how many runs share a CPU, and the threads that do the work."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice, pairwise
from typing import TypeVar

import numpy as np

from align_runtime.errors import ConfigurationError

MAX_STREAMS = 1024


def stream_count(device: str, threads: int | None, streams: int | None) -> int:
    """How many single-threaded runs go side by side; 1 means none: every run has all threads.

    Args:
        device: only a CPU has streams.
        threads: of one run, all cores when None.
        streams: what the caller asks for; when None, as many as `threads` on a CPU and none elsewhere.

    Raises:
        ConfigurationError: a number out of range, or streams on a device that has none.
    """
    if streams is None:
        return (threads or available_cores()) if device == "cpu" else 1
    if type(streams) is not int or not 1 <= streams <= MAX_STREAMS:
        raise ConfigurationError(f"streams is {streams!r}; 1 to {MAX_STREAMS} is needed, or None for one per thread")
    if streams > 1 and device != "cpu":
        raise ConfigurationError(f"streams is {streams} on {device}; only the CPU has streams, leave it out")
    return streams


def available_cores() -> int:
    """Logical processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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


R = TypeVar("R")


class Workers:
    """A pool of `count` threads, started when there is work for them. Many callers may share it.

    Threads are enough: ONNX Runtime, the tokenizer, and Pillow's decoders and filters release the interpreter lock.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="align")

    def ordered(self, work: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
        """`work` of every item, in the order of `items`.

        Args:
            items: read as far as needed: `ahead` of them are begun before the first result is handed out.

        Raises:
            ConfigurationError: the pool is closed.
            Exception: what `work` raises for the first item that fails, first in the order of the items and not of
                time; nothing after it is begun any more.
        """
        begun: deque[Future[R]] = deque()
        try:
            for item in items:
                begun.append(self._submit(work, item))
                if len(begun) > ahead:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for job in begun:
                job.cancel()

    def _submit(self, work: Callable[[T], R], item: T) -> Future[R]:
        try:
            return self._pool.submit(work, item)
        except RuntimeError:  # the pool's only word for it
            raise ConfigurationError("the model is closed; load the bundle again") from None

    def close(self) -> None:
        """Waits for what was begun. Closing twice is no error."""
        self._pool.shutdown()
