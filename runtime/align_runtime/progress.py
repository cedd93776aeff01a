"""Progress of a command on stderr: live on a terminal, lines in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO, TypeVar

from align_runtime.foreign_text import printable

if TYPE_CHECKING:
    pass

T = TypeVar("T")

BAR_WIDTH = 24
CLEAR_LINE = "\r\x1b[K"
REPORT_SECONDS = 30.0  # without a terminal, a step that still runs prints a line this often


@dataclass(eq=False)
class _Step:
    """A phase or bar that runs. `count` of `total` are done; `shown` is the last text of `Progress.show` in it."""

    title: str
    start: float
    count: int = 0
    total: int | None = None
    shown: str | None = None

    def __str__(self) -> str:
        text = self.shown or (self.title if self.total is None else f"{self.title} {self.count}/{self.total}")
        return f"{text} ({time.monotonic() - self.start:.0f} s)"


class Progress:
    """Phases and bars on stderr: live on a terminal, a line per finished phase in a log, nothing when quiet.

    In a log, a step that takes long also prints a line every `every` seconds while it runs. A stream that can no longer
    be written to (closed, broken pipe) is not an error; nothing more is shown.

    Attributes:
        finished: titles and seconds of the finished phases and bars, in order.
    """

    def __init__(self, quiet: bool = False, stream: TextIO | None = None, every: float = REPORT_SECONDS) -> None:
        self.finished: list[tuple[str, float]] = []
        self._stream = stream or sys.stderr
        self._quiet = quiet or self._stream is None  # without a file descriptor 2, Python has no sys.stderr
        self._live = not self._quiet and self._is_terminal()
        self._every = every
        self._steps: list[_Step] = []  # the innermost is the last
        self._reporter: tuple[threading.Thread, threading.Event] | None = None
        self._lock = threading.RLock()

    @contextmanager
    def phase(self, title: str) -> Iterator[None]:
        """A step of unknown length: its name while it runs, then the time that it took."""
        with self._running(title) as step:
            if self._live:
                self._write(f"  … {title}")
            try:
                yield
            except BaseException:
                self._finish("✗", step)
                raise
            self._finish("✓", step)

    def bar(self, title: str, items: Iterable[T], total: int) -> Iterator[T]:
        """Passes `items` on and shows how many of `total` are done."""
        start = time.monotonic()
        yield from self.track(title, items, total)
        self._finish("✓", _Step(title, start))

    def track(self, title: str, items: Iterable[T], total: int, done: int = 0) -> Iterator[T]:
        """As `bar`, for a part of a phase: it leaves no line. `done` of the `total` were passed on before."""
        with self._running(title, total) as step:
            for step.count, item in enumerate(items, start=done):
                if self._live:
                    filled = BAR_WIDTH * step.count // max(total, 1)
                    bar = f"{'█' * filled}{'·' * (BAR_WIDTH - filled)}"
                    self._write(f"  {title} [{bar}] {step.count}/{total}")
                yield item

    def show(self, text: str) -> None:
        """A line for the moment, on a terminal; in a log, the next line about the running step says this text."""
        if self._live:
            self._write(f"  … {text}")
        with self._lock:
            if self._steps:
                self._steps[-1].shown = text

    def warn(self, text: str) -> None:
        """A line that stays."""
        self._write(f"  ! {text}", end="\n")

    @contextmanager
    def _running(self, title: str, total: int | None = None) -> Iterator[_Step]:
        """Counts as the innermost step until it ends. In a log, a thread lives as long as the outermost step."""
        step = _Step(title, time.monotonic(), total=total)
        with self._lock:
            self._steps.append(step)
            if self._reporter is None and not (self._quiet or self._live):
                stop = threading.Event()
                thread = threading.Thread(target=self._report, args=[stop], name="progress", daemon=True)
                self._reporter = thread, stop
                thread.start()
        try:
            yield step
        finally:
            reporter = None
            with self._lock:
                self._steps.remove(step)
                if not self._steps:
                    reporter, self._reporter = self._reporter, None
            if reporter is not None:
                thread, stop = reporter
                stop.set()
                thread.join()

    def _report(self, stop: threading.Event) -> None:
        while not stop.wait(self._every):
            with self._lock:
                if self._steps:
                    self._write(f"  … {self._steps[-1]}", end="\n")

    def _finish(self, mark: str, step: _Step) -> None:
        seconds = time.monotonic() - step.start
        self.finished.append((step.title, seconds))
        self._write(f"  {mark} {step.title} ({seconds:.1f} s)", end="\n")

    def _write(self, text: str, end: str = "") -> None:
        """Writes `text`, which may hold a stranger's; on a terminal in place of the line that is not ended."""
        with self._lock:
            if not self._quiet:
                try:
                    self._stream.write(f"{CLEAR_LINE if self._live else ''}{printable(text)}{end}")
                    self._stream.flush()
                except (OSError, ValueError):  # ValueError: the stream was closed
                    self._quiet, self._live = True, False

    def _is_terminal(self) -> bool:
        try:
            return self._stream.isatty()
        except ValueError:  # closed
            return False
