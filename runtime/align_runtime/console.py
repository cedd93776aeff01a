"""The base of all commands: the parser, errors with exit codes, tables on stdout."""

from __future__ import annotations

import argparse
import json
import logging
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, NoReturn

from align_runtime.devices import AUTO, DEVICES, backend_of, resolve_device
from align_runtime.errors import AlignError, ConfigurationError
from align_runtime.foreign_text import printable
from align_runtime.standard_streams import complain, drop_unwritable, ensure_streams, show

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

DISTRIBUTION = "align-onnx"
EXIT_INTERRUPTED = 130  # 128 + SIGINT, the shell's convention
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE


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

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """On stdout, without `file`; argparse would swallow a full disk."""
        if file is None:
            show(self.format_help().rstrip("\n"))
        else:
            super().print_help(file)


class _PrintVersion(argparse.Action):
    """``--version``; the version is looked up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        show(f"{parser.prog.split()[0]} {version(DISTRIBUTION)}")
        parser.exit()


def run(parser: CommandParser, arguments: Sequence[str] | None, body: Callable[[argparse.Namespace], int]) -> int:
    """Parses `arguments` (None: those of the process), runs `body` with the options and returns the exit code.

    Errors of this project and of the operating system become one line on stderr. With ``--json`` stdout gets them too,
    as the object ``{"error": {"type": …, "message": …}}`` with the attributes of the error. SIGTERM is treated as an
    interrupt, so that a build that is stopped removes its temporary files.

    Raises:
        SystemExit: after ``--help`` and ``--version``.
    """
    ensure_streams()
    _log_to_stderr(parser.prog)
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does: a file name must not fail it
    given = sys.argv[1:] if arguments is None else list(arguments)
    as_json = "--json" in given
    code = None
    try:
        try:
            options = parser.parse_args(given)
            with _sigterm_interrupts():
                code = body(options)
        except SystemExit as ended:  # --help and --version
            code = int(ended.code or 0)
            sys.stdout.flush()
            raise
        sys.stdout.flush()
        return code
    except AlignError as error:
        _print_error(parser.prog, error, as_json)
        return error.exit_code
    except KeyboardInterrupt:
        complain(f"{parser.prog}: interrupted")
        return EXIT_INTERRUPTED
    except (
        BrokenPipeError,
        ConnectionResetError,
    ):  # stdout's reader is gone: the result stands
        return EXIT_BROKEN_PIPE if code is None else code
    except OSError as error:  # a full disk, a folder without write permission
        _print_error(parser.prog, error, as_json)
        return AlignError.exit_code
    finally:
        drop_unwritable(sys.stdout)
        drop_unwritable(sys.stderr)


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
    complain(f"{prog}: error: {error}")
    if as_json:
        with suppress(OSError):  # stdout itself may be what failed
            say_json({"error": error_json(error)})


class _PrintableFormatter(logging.Formatter):
    """Names in a message may be a stranger's; a traceback after it keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the name of logging)
        return printable(super().formatMessage(record))


def _log_to_stderr(prog: str) -> None:
    """Warnings of the runtime go to stderr, unless logging is configured already."""
    handler = logging.StreamHandler()
    handler.setFormatter(_PrintableFormatter(f"{prog}: %(message)s"))
    logging.basicConfig(handlers=[handler])


def say(lines: Iterable[str]) -> None:
    """Prints `lines` on stdout, one by one, with the control characters that foreign text in them may hold escaped.

    A command prints everything that is not JSON through here, so that no name in a bundle moves the cursor, clears the
    screen, reorders what is shown, or begins a line of its own.
    """
    for line in lines:
        show(printable(line))


def say_json(value: Any) -> None:
    """Prints `value` as one line of JSON in ASCII: texts stay what they are, and are escaped by JSON's own rules."""
    show(json.dumps(value))


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


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """``--quiet`` and ``--json``, the same for every command."""
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress")
    parser.add_argument(
        "--json", action="store_true", help="print the result, or the error, as one JSON object on stdout"
    )


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """``--device`` and ``--threads``, the same for every command that runs graphs."""
    parser.add_argument(
        "--device",
        default="cpu",
        type=device_name,
        metavar="DEVICE",
        help=f"{', '.join([*DEVICES, AUTO])}; a GPU by its index: cuda:1 (default: cpu)",
    )
    parser.add_argument("--threads", type=positive_int, help="threads of one call (default: all cores)")


def device_name(text: str) -> str:
    """For ``type=`` of an argument: a device, or ``auto``."""
    return text if text == AUTO else checked_argument(resolve_device, text)


def checked_argument(check: Callable[[str], str], text: str) -> str:
    """``check(text)``, whose ConfigurationError argparse then prints with the name of the option."""
    try:
        return check(text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def chosen_device(options: argparse.Namespace) -> str:
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


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """The lines of `rows` as aligned columns under `headings`; columns whose index is in `right` are right-aligned."""
    cells_of_rows = [list(map(printable, row)) for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells_of_rows, strict=True)]
    lines = []
    for row in cells_of_rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("─" * width for width in widths))
    return lines
