"""Workers: the threads that decode images and run streams, shared by all callers of a model."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from align_runtime.errors import DeviceError
from align_runtime.lifetime import check_process, close_at_exit, closed, is_forked

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger(__name__)


class Workers:
    """A pool of `count` threads, which start when there is work. Any number of callers may share it.

    Threads are enough: ONNX Runtime, the tokenizer and Pillow's decoders and filters release the GIL. It differs from
    `concurrent.futures.ThreadPoolExecutor` in three ways: it works on in a thread that outlives the main thread; where
    no thread can be started, which is logged, the caller does the work; and nothing in it can block a forked child.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._process = os.getpid()
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self._starting = threading.Lock()
        self._closed = False
        close_at_exit(self)
        weakref.finalize(self, self._jobs.put, None).atexit = False  # ends the threads of a pool that nobody closed

    def ordered(self, work: Callable[[T], R], items: Iterable[T], ahead: int) -> Generator[R, None, None]:
        """Yields ``work(item)`` for every item, in the order of `items`.

        Closing the generator cancels what has not started and does not wait for what has: a garbage collector may close
        it in a thread of the pool, which would then wait for itself.

        Args:
            items: read lazily: up to `ahead` items are started before the first result is yielded.

        Raises:
            ConfigurationError: the pool is closed, or this is a forked child.
            Exception: the error of the first item that fails, in the order of the items. No further item is started.
        """
        started: deque[_Job[R]] = deque()
        try:
            for item in items:
                started.append(self._start(partial(work, item)))
                if len(started) > ahead:
                    yield self._result(started.popleft())
            while started:
                yield self._result(started.popleft())
        finally:
            for job in started:
                job.claim()

    def overlapped(self, work: Callable[[T], R], items: Iterable[T], at_once: int) -> Generator[R, None, None]:
        """Yields ``work(item)`` for every item: one after another in the calling thread, or `at_once` at a time.

        One more is started, so that it is ready when the first of them ends.
        """
        if at_once > 1:
            yield from self.ordered(work, items, ahead=at_once)
        else:
            yield from map(work, items)

    def run(self, work: Callable[[], R]) -> R:
        """``work()``, in one of the threads; errors are those of `ordered`."""
        return self._result(self._start(work))

    def check(self) -> None:
        """Raises ConfigurationError if the pool is closed, or in a forked child."""
        check_process(self._process)
        if self._closed:
            raise closed()

    def close(self) -> None:
        """Waits for the work that has started. Any number of threads may close, and as often as they like.

        In a forked child, which has none of the threads, it does nothing.
        """
        if is_forked(self._process):
            return
        self._closed = True
        self._jobs.put(None)
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                thread.join()

    def _start(self, work: Callable[[], R]) -> _Job[R]:
        self.check()
        job = _Job(work)
        self._jobs.put(job)
        if not self._idle.acquire(blocking=False):
            self._add_thread()
        if self._closed and job.claim():  # closed meanwhile, and no thread may be left to do it
            raise closed()
        return job

    def _add_thread(self) -> None:
        """Starts a thread, unless all are there, another caller starts one, or none can be started."""
        if len(self._threads) < self.count and self._starting.acquire(blocking=False):
            try:
                name = f"align-{len(self._threads)}"
                thread = threading.Thread(target=_work, args=[self._jobs, self._idle], name=name, daemon=True)
                thread.start()
                self._threads.append(thread)
            except (RuntimeError, MemoryError) as reason:  # a limit on threads or memory; the interpreter is ending
                logger.warning("%s; %d of %d threads do the work", reason, len(self._threads), self.count)
            finally:
                self._starting.release()

    def _result(self, job: _Job[R]) -> R:
        check_process(self._process)  # in a forked child no thread would ever finish the job
        if not self._threads:
            job.run()
        return job.result()


def check_startable(count: int) -> None:
    """Starts `count` threads at once, and ends them.

    ONNX Runtime waits for ever where one of its threads does not start.

    Raises:
        DeviceError: one cannot be started.
    """
    end, threads = threading.Event(), []
    try:
        for _ in range(count):
            thread = threading.Thread(target=end.wait, name="align-check", daemon=True)
            thread.start()
            threads.append(thread)
    except (RuntimeError, MemoryError) as reason:
        raise DeviceError(
            f"only {len(threads)} of {count} threads can be started ({reason}); raise the limit of processes "
            "(ulimit -u, pids.max of a container) or of memory, or set threads= to fewer"
        ) from None
    finally:
        end.set()
        for thread in threads:
            thread.join()


def _work(jobs: SimpleQueue[_Job[Any] | None], idle: threading.Semaphore) -> None:
    """The life of a thread. It holds nothing of the pool but this, so that a pool that nobody uses is collected."""
    while (job := jobs.get()) is not None:
        job.run()
        del job
        idle.release()
    jobs.put(None)  # for the next thread


class _Job(Generic[R]):
    """Work that is done once, by the first thread that claims it."""

    def __init__(self, work: Callable[[], R]) -> None:
        self._work = work
        self._claimed = threading.Lock()
        self._done = threading.Event()
        self._value: R
        self._error: BaseException | None = None

    def claim(self) -> bool:
        """Whether the caller is the first; nobody else does the work then."""
        return self._claimed.acquire(blocking=False)

    def run(self) -> None:
        if not self.claim():
            return
        try:
            self._value = self._work()
        except BaseException as error:
            self._error = error
        self._done.set()
        del self  # an error's traceback leads here, and the job to the error

    def result(self) -> R:
        self._done.wait()
        try:
            if self._error is not None:
                raise self._error
            return self._value
        finally:
            del self
