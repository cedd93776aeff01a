"""Progress of a job: rate, share done and time left."""

from __future__ import annotations

import time

from align_runtime.progress import Progress

SHOWN_EVERY = 0.25  # seconds


class Status:
    """Counts what is done, and shows it.

    Args:
        kind: what the items are, in the plural.
        units: about as many as all sources have.
    """

    def __init__(self, progress: Progress, kind: str, units: int) -> None:
        self._progress = progress
        self._kind = kind
        self._units = units
        self._skipped_units = self._done_units = 0
        self.items = self.errors = 0
        self._start = self._shown = time.monotonic()

    def skip(self, units: int) -> None:
        """Counts units that an earlier process has done."""
        self._skipped_units += units

    def begin(self) -> None:
        """Starts the clock."""
        self._start = time.monotonic()

    def read(self, units: int) -> None:
        """Counts units of an item that was read."""
        self._done_units += units

    def add(self, items: int, errors: int) -> None:
        """Counts items that came back, with or without a row."""
        self.items += items
        self.errors += errors
        now = time.monotonic()
        if now - self._shown >= SHOWN_EVERY:
            self._shown = now
            self._progress.show(str(self))

    @property
    def seconds(self) -> float:
        """Since `begin`."""
        return time.monotonic() - self._start

    def __str__(self) -> str:
        seconds = max(self.seconds, 1e-9)
        parts = [f"{self.items:,} {self._kind}", f"{self.items / seconds:,.0f}/s"]
        done = self._skipped_units + self._done_units
        if self._units and self._done_units:
            parts.append(f"{min(done / self._units, 1):.0%}")
            left = max(self._units - done, 0) * seconds / self._done_units
            parts.append(f"{_duration(left)} left")
        if self.errors:
            parts.append(f"{self.errors:,} errors")
        return " · ".join(parts)


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if hours >= 48:
        return f"{hours / 24:.0f} days"
    if minutes >= 100:
        return f"{hours:.1f} h"
    return f"{minutes:.0f} min" if seconds >= 100 else f"{seconds:.0f} s"
