"""Admission: what all requests together hold, and the 429 for one that would hold too much."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from align_serving.http.error_replies import overloaded
from align_serving.http.limits import Limits

MAX_RETRY_SECONDS = 60
WINDOW = 256  # requests that the rate is taken from


class Admission:
    """Counts items and body bytes of the requests of one event loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.items = 0
        self.bytes = 0
        self._left: deque[tuple[float, int]] = deque(maxlen=WINDOW)  # when requests ended, and their items

    @contextmanager
    def request(self) -> Iterator[Ticket]:
        """What one request holds while this block runs."""
        ticket = Ticket(self)
        try:
            yield ticket
        finally:
            self.items -= ticket.items
            self.bytes -= ticket.bytes
            if ticket.items:
                self._left.append((time.monotonic(), ticket.items))

    def add_bytes(self, count: int) -> None:
        """Takes `count` bytes more, or raises ServiceError 429."""
        if self.bytes + count > self._limits.queue_bytes:
            raise overloaded(
                f"the requests that wait hold {self.bytes} bytes, at most {self._limits.queue_bytes} are kept; "
                "try again later",
                self.retry_seconds(),
            )
        self.bytes += count

    def add_items(self, count: int) -> None:
        """Takes `count` texts and images more, or raises ServiceError 429."""
        if self.items + count > self._limits.queue_items:
            raise overloaded(
                f"{self.items} texts and images wait, at most {self._limits.queue_items} do; try again later",
                self.retry_seconds(),
            )
        self.items += count

    def retry_seconds(self) -> int:
        """Whole seconds in which what waits is computed, at the rate of the last requests."""
        if len(self._left) < 2:
            return 1
        seconds = time.monotonic() - self._left[0][0]
        computed = sum(items for _, items in self._left)
        return min(MAX_RETRY_SECONDS, max(1, math.ceil(self.items * seconds / computed)))


class Ticket:
    """What one request holds of an `Admission`."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.items = 0
        self.bytes = 0

    def add_bytes(self, count: int) -> None:
        """As `Admission.add_bytes`."""
        self._admission.add_bytes(count)
        self.bytes += count

    def add_items(self, count: int) -> None:
        """As `Admission.add_items`."""
        self._admission.add_items(count)
        self.items += count
