"""A lock for CUDA graphs: while one is captured, nothing else of the process may use the GPU.

ONNX Runtime captures in CUDA's global mode, in which an allocation or a copy by any other thread fails and breaks the
capture. All other work shares the lock.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class CaptureLock:
    """Any number of threads share it, or one has it alone; who waits for the latter goes before new sharers."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Frees it in a forked child, where the threads that had it are gone."""
        self._changed = threading.Condition()
        self._sharers = 0
        self._waiting = 0
        self._is_taken = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """For work on the GPU that captures nothing."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_taken and not self._waiting)
            self._sharers += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharers -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """For a first run, which captures."""
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._is_taken and not self._sharers)
                self._is_taken = True
            finally:
                self._waiting -= 1
        try:
            yield
        finally:
            with self._changed:
                self._is_taken = False
                self._changed.notify_all()


CAPTURES = CaptureLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=CAPTURES.renew)
