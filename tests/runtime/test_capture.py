"""The lock for CUDA graphs: any number share it or one has it alone, and who waits for that goes first."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from align_runtime.backends.capture import CAPTURES, CaptureLock

SECONDS = 10.0  # more than any thread here needs
A_WHILE = 0.05  # in which a thread that does not wait would be through


def started(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_sharers_do_not_wait_for_each_other() -> None:
    lock, both = CaptureLock(), threading.Barrier(2, timeout=SECONDS)

    def work() -> None:
        with lock.shared():
            both.wait()

    threads = [started(work) for _ in range(2)]
    for thread in threads:
        thread.join(SECONDS)
    assert not both.broken


@pytest.mark.parametrize("kind", ["shared", "alone"])
def test_one_has_it_alone(kind: str) -> None:
    lock, inside = CaptureLock(), threading.Event()

    def work() -> None:
        with getattr(lock, kind)():
            inside.set()

    with lock.alone():
        thread = started(work)
        assert not inside.wait(A_WHILE)
    assert inside.wait(SECONDS)
    thread.join(SECONDS)


def test_it_waits_for_all_sharers_and_goes_before_new_ones() -> None:
    lock, order, waiting = CaptureLock(), list[str](), threading.Event()

    def capture() -> None:
        waiting.set()
        with lock.alone():
            order.append("alone")

    def share() -> None:
        with lock.shared():
            order.append("shared")

    with lock.shared():
        first = started(capture)
        assert waiting.wait(SECONDS)
        while not lock._waiting:
            pass
        second = started(share)
        second.join(A_WHILE)
        assert order == []
    first.join(SECONDS)
    second.join(SECONDS)
    assert order == ["alone", "shared"]


@pytest.mark.parametrize("kind", ["shared", "alone"])
def test_a_failure_frees_it(kind: str) -> None:
    lock = CaptureLock()
    with pytest.raises(ValueError, match="it"), getattr(lock, kind)():
        raise ValueError("it")
    thread = started(lambda: lock.alone().__enter__())
    thread.join(SECONDS)
    assert not thread.is_alive()


def test_a_forked_child_does_not_wait_for_threads_of_its_parent() -> None:
    with CAPTURES.alone():
        child = os.fork()
        if child == 0:
            waiting = started(lambda: CAPTURES.alone().__enter__())
            waiting.join(SECONDS)
            os._exit(waiting.is_alive())
        assert os.waitpid(child, 0)[1] == 0
