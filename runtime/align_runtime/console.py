"""What the commands share: one-line errors with exit codes, progress on stderr, tables on stdout."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TextIO, TypeVar

from align_runtime.devices import AUTO, DEVICES
from align_runtime.errors import AlignError

T = TypeVar("T")

EXIT_INTERRUPTED = 130  # 128 + SIGINT, the shell's convention
EXIT_UNREAD = 141  # 128 + SIGPIPE
BAR_WIDTH = 24
CLEAR_LINE = "\r\x1b[K"


def run(name: str, body: Callable[[], int]) -> int:
    """Runs a command's body; errors of this project become one line on stderr and their exit code.

    SIGTERM is treated as an interrupt, so that a build that is stopped removes what it had begun.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.basicConfig(format=f"{name}: %(message)s")  # warnings of the runtime, on stderr
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a file's name or a narrow locale is no failure
    code = None
    try:
        code = body()
        sys.stdout.flush()
        return code
    except AlignError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output, `head` say, has gone: the result stands, where there is one
        _abandon_output()
        return EXIT_UNREAD if code is None else code
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"{name}: error: {error}", file=sys.stderr)
        _abandon_output()
        return AlignError.exit_code


def _abandon_output() -> None:
    """Gives up what stdout cannot take; the interpreter would try again at its end, complain, and exit with 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """``--quiet`` and ``--json``, the same for every command."""
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object on stdout")


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """``--device`` and ``--threads``, the same for every command that runs graphs."""
    devices = ", ".join([*DEVICES, AUTO])
    parser.add_argument("--device", default="cpu", help=f"where to run: {devices} (default: cpu)")
    parser.add_argument("--threads", type=int, help="threads of one call (default: all cores)")


class Progress:
    """Phases and bars on stderr: live on a terminal, one line per finished phase in a log, nothing when quiet."""

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.finished: list[tuple[str, float]] = []  # titles and seconds, in order
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._live = not quiet and self._stream.isatty()

    @contextmanager
    def phase(self, title: str) -> Iterator[None]:
        """A step whose length is not known beforehand: its name while it runs, then the time that it took."""
        start = time.monotonic()
        if self._live:
            self._write(f"{CLEAR_LINE}  … {title}")
        try:
            yield
        except BaseException:
            self._finish("✗", title, start)
            raise
        self._finish("✓", title, start)

    def bar(self, title: str, items: Iterable[T], total: int) -> Iterator[T]:
        """Passes `items` on, showing how many of `total` are done."""
        start = time.monotonic()
        yield from self.track(title, items, total)
        self._finish("✓", title, start)

    def track(self, title: str, items: Iterable[T], total: int, done: int = 0) -> Iterator[T]:
        """As `bar`, for a part of a phase: it leaves no line. `done` of the `total` were passed on before."""
        for count, item in enumerate(items, start=done):
            if self._live:
                filled = BAR_WIDTH * count // max(total, 1)
                self._write(f"{CLEAR_LINE}  {title} [{'█' * filled}{'·' * (BAR_WIDTH - filled)}] {count}/{total}")
            yield item

    def show(self, text: str) -> None:
        """A line for the moment, on a terminal only."""
        if self._live:
            self._write(f"{CLEAR_LINE}  … {text}")

    def warn(self, text: str) -> None:
        """A line that stays."""
        if not self._quiet:
            self._write(f"{CLEAR_LINE if self._live else ''}  ! {text}\n")

    def _finish(self, mark: str, title: str, start: float) -> None:
        seconds = time.monotonic() - start
        self.finished.append((title, seconds))
        if not self._quiet:
            self._write(f"{CLEAR_LINE if self._live else ''}  {mark} {title} ({seconds:.1f} s)\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """`rows` as aligned columns under `headings`; columns whose index is in `right` are right-aligned."""
    widths = [max(len(row[column]) for row in [headings, *rows]) for column in range(len(headings))]
    lines = []
    for row in [headings, *rows]:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)
