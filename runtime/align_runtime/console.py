"""The base of all commands: the parser, errors with exit codes, progress on stderr, tables on stdout."""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from io import TextIOWrapper
from typing import Any, NoReturn, TextIO, TypeVar

from align_runtime.devices import AUTO, DEVICES, Device, backend_of, resolve_device
from align_runtime.errors import AlignError, ConfigurationError

T = TypeVar("T")

DISTRIBUTION = "align-onnx"
EXIT_INTERRUPTED = 130  # 128 + SIGINT, the shell's convention
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE
BAR_WIDTH = 24
CLEAR_LINE = "\r\x1b[K"
REPORT_SECONDS = 30.0  # without a terminal, a step that still runs prints a line this often


class CommandParser(argparse.ArgumentParser):
    """An argument parser with ``--version`` whose errors are one line: a wrong argument raises ConfigurationError.

    `run` prints the error. Options cannot be abbreviated, so a new option never changes what a script means.
    Subcommands: ``parser.add_subparsers(parser_class=CommandParser, …)``.
    """

    def __init__(self, prog: str | None = None, description: str | None = None, **settings: Any) -> None:
        super().__init__(prog, description=description, **{"allow_abbrev": False} | settings)
        self.add_argument("--version", action=_PrintVersion, nargs=0, help="print the version and exit")

    def error(self, message: str) -> NoReturn:
        """Raises ConfigurationError; argparse would print the whole usage first."""
        raise ConfigurationError(f"{message}; see {self.prog} --help")


class _PrintVersion(argparse.Action):
    """``--version``; the version is looked up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        print(f"{parser.prog.split()[0]} {version(DISTRIBUTION)}")
        parser.exit()


def run(parser: CommandParser, arguments: Sequence[str] | None, body: Callable[[argparse.Namespace], int]) -> int:
    """Parses `arguments` (None: those of the process), runs `body` with the options and returns the exit code.

    Errors of this project and of the operating system become one line on stderr. With ``--json`` stdout gets them too,
    as the object ``{"error": {"type": …, "message": …}}`` with the attributes of the error. SIGTERM is treated as an
    interrupt, so that a build that is stopped removes its temporary files.

    Raises:
        SystemExit: after ``--help`` and ``--version``.
    """
    logging.basicConfig(format=f"{parser.prog}: %(message)s")  # warnings of the runtime, on stderr
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does: a file name must not fail it
    given = sys.argv[1:] if arguments is None else list(arguments)
    as_json = "--json" in given
    code = None
    try:
        options = parser.parse_args(given)
        with _sigterm_interrupts():
            code = body(options)
        sys.stdout.flush()
        return code
    except AlignError as error:
        _print_error(parser.prog, error, as_json)
        return error.exit_code
    except KeyboardInterrupt:
        _complain(f"{parser.prog}: interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of stdout, e.g. `head`, is gone: the result stands where there is one
        _drop_unwritable(sys.stdout)
        return EXIT_BROKEN_PIPE if code is None else code
    except OSError as error:  # a full disk, a folder without write permission
        _print_error(parser.prog, error, as_json)
        _drop_unwritable(sys.stdout)
        return AlignError.exit_code
    finally:
        _drop_unwritable(sys.stderr)


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM is an interrupt while this block runs in the main thread; other threads cannot have handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)  # None: not set by Python


def _print_error(prog: str, error: AlignError | OSError, as_json: bool) -> None:
    """The error as a line on stderr and, if asked for, as JSON on stdout."""
    _complain(f"{prog}: error: {error}")
    if as_json:
        with suppress(OSError):  # stdout itself may be what failed
            print(json.dumps({"error": error_json(error)}), flush=True)


def _complain(line: str) -> None:
    """A line on stderr, where there is one."""
    if sys.stderr is not None:  # without a file descriptor 2; print would take stdout
        with suppress(OSError, ValueError):
            print(line, file=sys.stderr)


def error_json(error: Exception) -> dict[str, Any]:
    """`error` for JSON: ``type``, ``message`` and, of an AlignError, its attributes such as ``index`` or ``metric``.

    A value that JSON cannot hold (NaN, infinity) is None.
    """
    described: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, AlignError):
        for name, value in vars(error).items():
            if isinstance(value, float):
                described.setdefault(name, value if math.isfinite(value) else None)
            elif isinstance(value, str | int | None):
                described.setdefault(name, value)
    return described


def _drop_unwritable(stream: TextIO | None) -> None:
    """Gives up what `stream` cannot take; the interpreter would try again at its end, complain, and exit with 120."""
    if stream is not None and not stream.closed:
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """``--quiet`` and ``--json``, the same for every command."""
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress")
    parser.add_argument(
        "--json", action="store_true", help="print the result, or the error, as one JSON object on stdout"
    )


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """``--device`` and ``--threads``, the same for every command that runs graphs."""
    devices = [*DEVICES, AUTO]
    parser.add_argument(
        "--device", default="cpu", choices=devices, metavar="DEVICE", help=f"{', '.join(devices)} (default: cpu)"
    )
    parser.add_argument("--threads", type=positive_int, help="threads of one call (default: all cores)")


def chosen_device(options: argparse.Namespace) -> Device:
    """The device of `options`, with ``auto`` resolved.

    Raises:
        ConfigurationError: threads for a device whose calls do not run on CPU threads.
    """
    device = resolve_device(options.device)
    if options.threads is not None and not backend_of(device).on_cpu:
        raise ConfigurationError(f"--threads is for the CPU, not for {device}; leave it out")
    return device


def positive_int(text: str) -> int:
    """For ``type=`` of an argument: an integer of 1 or more."""
    value = int(text) if text.isascii() and text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of 1 or more, got {text!r}")
    return value


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
                self._write(f"{CLEAR_LINE}  … {title}")
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
                    self._write(f"{CLEAR_LINE}  {title} [{bar}] {step.count}/{total}")
                yield item

    def show(self, text: str) -> None:
        """A line for the moment, on a terminal; in a log, the next line about the running step says this text."""
        if self._live:
            self._write(f"{CLEAR_LINE}  … {text}")
        with self._lock:
            if self._steps:
                self._steps[-1].shown = text

    def warn(self, text: str) -> None:
        """A line that stays."""
        self._write(f"{CLEAR_LINE if self._live else ''}  ! {text}\n")

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
                    self._write(f"  … {self._steps[-1]}\n")

    def _finish(self, mark: str, step: _Step) -> None:
        seconds = time.monotonic() - step.start
        self.finished.append((step.title, seconds))
        self._write(f"{CLEAR_LINE if self._live else ''}  {mark} {step.title} ({seconds:.1f} s)\n")

    def _write(self, text: str) -> None:
        with self._lock:
            if not self._quiet:
                try:
                    self._stream.write(text)
                    self._stream.flush()
                except (OSError, ValueError):  # ValueError: the stream was closed
                    self._quiet, self._live = True, False

    def _is_terminal(self) -> bool:
        try:
            return self._stream.isatty()
        except ValueError:  # closed
            return False


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
