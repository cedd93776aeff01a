"""The pool of threads: order of results, reading ahead, errors, and closing."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from align_runtime.errors import ConfigurationError
from align_runtime.scheduling import Source
from align_runtime.workers import Workers


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = Workers(3)
    yield made
    made.close()


def test_results_come_in_the_order_of_the_items(workers: Workers) -> None:
    """The first item finishes last: it waits for the third one."""
    third = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert third.wait(10)
        if item == 2:
            third.set()
        return 10 * item

    assert list(workers.ordered(work, range(5), ahead=4)) == [0, 10, 20, 30, 40]


def test_items_are_read_as_far_ahead_as_asked(workers: Workers) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = workers.ordered(str, items(), ahead=4)
    assert next(results) == "0"
    assert taken == [0, 1, 2, 3, 4]
    results.close()
    assert len(taken) == 5


@pytest.mark.parametrize(("at_once", "ahead"), [(1, 1), (2, 3), (3, 4)])
def test_work_overlaps_as_often_as_asked(workers: Workers, at_once: int, ahead: int) -> None:
    """With one at a time in the calling thread, as the work has all threads of its own."""
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = workers.overlapped(lambda item: (item, threading.current_thread()), items(), at_once)
    item, thread = next(results)
    assert (item, taken) == (0, list(range(ahead)))
    assert (thread is threading.current_thread()) == (at_once == 1)
    results.close()


def test_an_error_of_the_source_is_kept_for_later() -> None:
    source = Source(map(int, ["3", "4", "x", "5"]))
    assert list(source) == [(0, 3), (1, 4)]
    with pytest.raises(ValueError, match="'x'"):
        source.check()
    whole = Source([1])
    assert list(whole) == [(0, 1)]
    whole.check()


def test_the_error_is_that_of_the_first_item_and_not_of_the_earliest_failure(workers: Workers) -> None:
    fourth = threading.Event()

    def work(item: int) -> int:
        if item == 1:
            assert fourth.wait(10)
            raise ValueError("item 1")
        if item == 3:
            fourth.set()
            raise ValueError("item 3")
        return item

    results = workers.ordered(work, range(50), ahead=8)
    assert next(results) == 0
    with pytest.raises(ValueError, match="item 1"):
        next(results)


def test_nothing_starts_after_a_failure() -> None:
    single, started = Workers(1), []

    def work(item: int) -> None:
        started.append(item)
        raise ValueError(item)

    with pytest.raises(ValueError, match="0"):
        list(single.ordered(work, range(1000), ahead=8))
    single.close()
    assert len(started) <= 9


def test_a_closed_pool_is_an_error(workers: Workers) -> None:
    workers.close()
    workers.close()
    with pytest.raises(ConfigurationError, match="closed"):
        list(workers.ordered(str, [1], ahead=1))
