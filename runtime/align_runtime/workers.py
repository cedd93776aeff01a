"""Work that is done by several threads at once and comes back in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from align_runtime.errors import ConfigurationError

T = TypeVar("T")
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
