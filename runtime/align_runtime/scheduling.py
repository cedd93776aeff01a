"""Scheduling: how inputs are split into batches, how many runs share a CPU, and the threads that do the work."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice, pairwise
from typing import Generic, TypeVar

import numpy as np

from align_runtime.devices import backend_of
from align_runtime.errors import ConfigurationError

MAX_STREAMS = 1024

T = TypeVar("T")
R = TypeVar("R")


def available_cores() -> int:
    """The number of logical processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
        raise ConfigurationError(f"streams is {streams!r}; expected 1 to {MAX_STREAMS}, or None for one per thread")
    if streams > 1 and not on_cpu:
        raise ConfigurationError(f"streams is {streams}, but {device} has none; leave streams out")
    return streams


def check_batch_size(batch_size: int | None) -> None:
    """Raises ConfigurationError unless `batch_size` is None or an integer of at least 1."""
    if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
        raise ConfigurationError(f"batch_size is {batch_size!r}; expected an integer of at least 1, or None")


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


class Workers:
    """A pool of `count` threads, which start when there is work. Any number of callers may share it.

    Threads are enough: ONNX Runtime, the tokenizer and Pillow's decoders and filters release the GIL.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="align")

    def ordered(self, work: Callable[[T], R], items: Iterable[T], ahead: int) -> Generator[R, None, None]:
        """Yields ``work(item)`` for every item, in the order of `items`.

        Closing the generator cancels what has not started and does not wait for what has: a garbage collector may close
        it in a thread of the pool, which would then wait for itself.

        Args:
            items: read lazily: up to `ahead` items are started before the first result is yielded.

        Raises:
            ConfigurationError: the pool is closed.
            Exception: the error of the first item that fails, in the order of the items. No further item is started.
        """
        started: deque[Future[R]] = deque()
        try:
            for item in items:
                started.append(self._submit(work, item))
                if len(started) > ahead:
                    yield started.popleft().result()
            while started:
                yield started.popleft().result()
        finally:
            for job in started:
                job.cancel()

    def overlapped(self, work: Callable[[T], R], items: Iterable[T], at_once: int) -> Generator[R, None, None]:
        """Yields ``work(item)`` for every item: one after another in the calling thread, or `at_once` at a time.

        One more is started, so that it is ready when the first of them ends.
        """
        if at_once > 1:
            yield from self.ordered(work, items, ahead=at_once)
        else:
            yield from map(work, items)

    def close(self) -> None:
        """Waits for the work that has started. Closing twice is allowed."""
        self._pool.shutdown()

    def _submit(self, work: Callable[[T], R], item: T) -> Future[R]:
        try:
            return self._pool.submit(work, item)
        except RuntimeError:  # the pool has no error of its own for this
            raise ConfigurationError("the model is closed; load the bundle again") from None
