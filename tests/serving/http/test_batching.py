"""The queue in front of the model: order, fairness, failures, cancelling."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from align_serving.http.batching import Batcher


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 20))


class Recorded:
    """Doubles numbers, and holds the first call until `go`."""

    def __init__(self) -> None:
        self.go, self.entered = threading.Event(), threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.entered.set()
        self.go.wait(20)
        if -1 in items:
            raise ValueError("minus one")
        return [2 * item for item in items]


async def started(recorded: Recorded) -> None:
    while not recorded.entered.is_set():
        await asyncio.sleep(0.001)


def test_results_come_in_the_order_of_the_items() -> None:
    async def body() -> None:
        recorded = Recorded()
        recorded.go.set()
        batcher = Batcher[int, int](recorded, 3, 2)
        found = await asyncio.gather(*(batcher(list(range(start, start + 7))) for start in range(20)))
        assert found == [[2 * value for value in range(start, start + 7)] for start in range(20)]
        assert max(map(len, recorded.batches)) == 3
        assert await batcher([]) == []
        batcher.close()

    run(body)


def test_a_large_request_does_not_hold_up_small_ones() -> None:
    async def body() -> None:
        recorded = Recorded()
        batcher = Batcher[int, int](recorded, 4, 1)
        large = asyncio.create_task(batcher(list(range(100, 120))))
        await started(recorded)
        small = [asyncio.create_task(batcher([value])) for value in (1, 2)]
        await asyncio.sleep(0)
        recorded.go.set()
        assert await asyncio.gather(*small) == [[2], [4]]
        assert {1, 2} <= set(recorded.batches[1])
        assert await large == [2 * value for value in range(100, 120)]
        assert len(recorded.batches[1]) == 4
        batcher.close()

    run(body)


def test_a_failure_is_that_of_its_batch_and_the_next_one_runs() -> None:
    async def body() -> None:
        recorded = Recorded()
        recorded.go.set()
        batcher = Batcher[int, int](recorded, 2, 1)
        with pytest.raises(ValueError, match="minus one"):
            await batcher([1, -1, 3, 4, 5, 6])
        assert await batcher([5]) == [10]
        assert [3, 4] not in recorded.batches
        batcher.close()

    run(body)


def test_what_is_cancelled_does_not_start() -> None:
    async def body() -> None:
        recorded = Recorded()
        batcher = Batcher[int, int](recorded, 2, 1)
        first = asyncio.create_task(batcher([1]))
        await started(recorded)
        gone, last = asyncio.create_task(batcher([2, 3, 4])), asyncio.create_task(batcher([5]))
        await asyncio.sleep(0)
        gone.cancel()
        recorded.go.set()
        assert await asyncio.gather(first, last) == [[2], [10]]
        assert recorded.batches == [[1], [5]]
        batcher.close()

    run(body)


def test_no_more_calls_at_once_than_runs() -> None:
    async def body() -> None:
        running, most, lock = 0, 0, threading.Lock()

        def call(items: Sequence[int]) -> Sequence[int]:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            threading.Event().wait(0.01)
            with lock:
                running -= 1
            return items

        batcher = Batcher[int, int](call, 1, 3)
        await asyncio.gather(*(batcher([value]) for value in range(20)))
        assert most == 3
        batcher.close()

    run(body)
