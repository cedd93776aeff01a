"""Dynamic batching: items of many requests are computed in one call of the model.

Nothing waits for a batch to fill: a call starts as soon as one of `runs` is free, with all that came meanwhile. So an
idle service answers at once, and a busy one has large batches.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")
Call = Callable[[Sequence[T]], Sequence[R]]  # blocking; a result, or the InputError of an item, for each item


# Computes items, together with those of other requests; the results are in their order.
Batched = Callable[[Sequence[T]], Coroutine[Any, Any, Sequence[R]]]


@dataclass(eq=False)
class _Job(Generic[T, R]):
    """The items of one request, and how far they are."""

    items: Sequence[T]
    done: asyncio.Future[list[R]]
    results: list[R | None]
    started: int = 0
    missing: int = field(init=False)

    def __post_init__(self) -> None:
        self.missing = len(self.items)


class Batcher(Generic[T, R]):
    """A queue in front of `call`, for one event loop.

    Requests with many items do not hold up those with few: each batch takes from all that wait, in turn.
    """

    def __init__(self, call: Call[T, R], max_batch: int, runs: int) -> None:
        """`call` runs in at most `runs` threads at once, with at most `max_batch` items."""
        self._call = call
        self._max_batch = max_batch
        self._free = runs
        self._threads = ThreadPoolExecutor(runs, thread_name_prefix="align-batch")
        self._jobs: deque[_Job[T, R]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, items: Sequence[T], /) -> Sequence[R]:
        """The results of `items`, in their order. When it is cancelled, items that have not started never start."""
        if not items:
            return []
        job = _Job[T, R](items, asyncio.get_running_loop().create_future(), [None] * len(items))
        self._jobs.append(job)
        self._start()
        try:
            return await job.done
        finally:
            if job in self._jobs:
                self._jobs.remove(job)

    def close(self) -> None:
        """Ends the threads, after the calls that run."""
        self._threads.shutdown()

    def _start(self) -> None:
        while self._free and self._jobs:
            self._free -= 1
            task = asyncio.create_task(self._compute(self._next_batch()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next_batch(self) -> list[tuple[_Job[T, R], int, int]]:
        """Parts of jobs, (job, start, end), of at most `max_batch` items together."""
        parts, room = [], self._max_batch
        while room and self._jobs:
            job = self._jobs.popleft()
            share = max(1, room // (len(self._jobs) + 1))
            start, job.started = job.started, min(len(job.items), job.started + share)
            parts.append((job, start, job.started))
            room -= job.started - start
            if job.started < len(job.items):
                self._jobs.append(job)
        return parts

    async def _compute(self, parts: list[tuple[_Job[T, R], int, int]]) -> None:
        items = [item for job, start, end in parts for item in job.items[start:end]]
        try:
            loop = asyncio.get_running_loop()
            results = deque(await loop.run_in_executor(self._threads, self._call, items))
            for job, start, end in parts:
                job.results[start:end] = [results.popleft() for _ in range(start, end)]
                job.missing -= end - start
                if not job.missing and not job.done.done():
                    job.done.set_result(job.results)  # type: ignore[arg-type]  # none is missing
        except BaseException as error:
            for job, _, _ in parts:
                if job in self._jobs:
                    self._jobs.remove(job)
                if not job.done.done():
                    job.done.set_exception(error)
        finally:
            self._free += 1
            self._start()
