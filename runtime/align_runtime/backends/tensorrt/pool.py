"""Lanes that threads take and give back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import Condition

from align_runtime.backends.tensorrt.lane import Lane
from align_runtime.errors import ConfigurationError


class LanePool:
    """Threads wait here for a lane."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = lanes
        self._free = list(lanes)
        self._closed = False
        self._changed = Condition()

    @contextmanager
    def take(self, most: int, least: int = 1) -> Iterator[list[Lane]]:
        """`least` lanes, waited for, and up to `most` of those that are free by then.

        Raises:
            ConfigurationError: the pool is closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._free) >= least or self._closed)
            if self._closed:
                raise ConfigurationError("the model is closed; load the bundle again")
            count = min(most, len(self._free))
            taken, self._free = self._free[:count], self._free[count:]
        try:
            yield taken
        finally:
            with self._changed:
                self._free += taken
                self._changed.notify_all()

    def close(self) -> None:
        """Waits for the lanes that are taken, then closes all. Threads that wait for one get an error."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._free) == len(self._lanes))
        with ExitStack() as closing:  # an error in one lane does not keep the others open
            for lane in self._lanes:
                closing.callback(lane.close)
