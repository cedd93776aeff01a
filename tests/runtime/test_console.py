"""What the commands share: exit codes, one-line errors, progress that is quiet where nobody looks."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import align_runtime
from align_runtime.console import CommandParser, add_output_options, positive_int, run, table
from align_runtime.errors import BundleError, InputError, ParityError
from align_runtime.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def parser() -> CommandParser:
    made = CommandParser("align-x", "Does x.")
    made.add_argument("--size", type=positive_int)
    made.add_argument("--level", choices=["low", "high"])
    add_output_options(made)
    return made


def raising(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def body(options: argparse.Namespace) -> int:
        raise error

    return body


ERRORS = [
    (BundleError("no such bundle"), 2, "align-x: error: no such bundle\n"),
    (ParityError("vision", "max_abs", 1e-5, 1e-3, "cat"), 1, "align-x: error: vision: max_abs is 0.001"),
    (KeyboardInterrupt(), 130, "align-x: interrupted\n"),
    (OSError(28, "No space left on device", "x.onnx"), 2, "align-x: error: [Errno 28] No space left on device"),
]


@pytest.mark.parametrize(("error", "code", "text"), ERRORS)
def test_errors_are_one_line_and_a_code(
    error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(parser(), [], raising(error)) == code
    printed = capsys.readouterr()
    assert printed.err.startswith(text)
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_other_errors_show_themselves() -> None:
    with pytest.raises(ZeroDivisionError):
        run(parser(), [], lambda options: int(1 / 0))


@pytest.mark.parametrize(
    ("error", "described"),
    [
        (BundleError("gone"), {"type": "BundleError", "message": "gone"}),
        (InputError("torn", 3), {"type": "InputError", "message": "input 3: torn", "index": 3}),
        (InputError("torn"), {"type": "InputError", "message": "torn", "index": None}),
        (OSError(28, "No space"), {"type": "OSError", "message": "[Errno 28] No space"}),
    ],
)
def test_with_json_an_error_is_an_object_too(
    error: Exception, described: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(parser(), ["--json"], raising(error)) in (1, 2)
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"error": described}
    assert printed.err.startswith("align-x: error: ")
    assert printed.err.count("\n") == 1


def test_what_failed_a_gate_is_in_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(parser(), ["--json"], raising(ParityError("vision", "max_abs", 1e-5, math.nan, "cat"))) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert "vision: max_abs is nan" in error.pop("message")
    assert error == {
        "type": "ParityError",
        "subject": "vision",
        "metric": "max_abs",
        "limit": 1e-5,
        "observed": None,  # JSON has no NaN
        "sample": "cat",
    }


# ── arguments ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--colour"], "--colour"),
        (["--siz", "3"], "--siz"),  # no abbreviations
        (["--size", "0"], "1 or more, got '0'"),
        (["--size", "²"], "1 or more, got '²'"),
        (["--level", "medium"], "choose from"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_wrong_argument_is_one_line(
    arguments: list[str], word: str, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(parser(), [*arguments, *(["--json"] if as_json else [])], lambda options: 0) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("align-x: error: ")
    assert word in printed.err
    assert printed.err.endswith("; see align-x --help\n")
    assert printed.err.count("\n") == 1
    if as_json:
        error = json.loads(printed.out)["error"]
        assert error["type"] == "ConfigurationError"
        assert printed.err == f"align-x: error: {error['message']}\n"
    else:
        assert printed.out == ""


def test_options_reach_the_command() -> None:
    seen: list[argparse.Namespace] = []
    assert run(parser(), ["--size", "3", "-q"], lambda options: seen.append(options) or 0) == 0  # type: ignore[func-returns-value]
    assert (seen[0].size, seen[0].quiet, seen[0].json) == (3, True, False)


def test_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    made = CommandParser("align-x", "Does x.")
    commands = made.add_subparsers(parser_class=CommandParser, required=True, dest="command", metavar="COMMAND")
    add_output_options(commands.add_parser("first", description="The first."))
    assert run(made, ["first"], lambda options: 7) == 7
    for arguments in (["second"], []):
        assert run(made, arguments, lambda options: 0) == 2
        assert capsys.readouterr().err.endswith("; see align-x --help\n")
    assert run(made, ["first", "--json", "--colour"], lambda options: 0) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)["error"]["message"] in printed.err
    assert printed.err.count("\n") == 1
    with pytest.raises(SystemExit) as caught:
        run(made, ["first", "--version"], lambda options: 0)
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"align-x {version('align-onnx')}\n"


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for option, start in (("--version", f"align-x {version('align-onnx')}\n"), ("--help", "usage: align-x ")):
        with pytest.raises(SystemExit) as caught:
            run(parser(), [option], lambda options: 1)
        assert caught.value.code == 0
        assert capsys.readouterr().out.startswith(start)


# ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────────────

PRINTS = """
import sys
from align_runtime.console import CommandParser, run
text, times = sys.argv[1:]
sys.exit(run(CommandParser("align-x"), [], lambda options: print(text * int(times)) or 1))
"""


def printing(text: str, times: int, stdout: int, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """A command that prints `text` so often and fails a check: 1."""
    environment = {"PYTHONPATH": str(Path(align_runtime.__file__).parents[1]), **variables}
    command = [sys.executable, "-c", PRINTS, text, str(times)]
    return subprocess.run(command, env=environment, stdout=stdout, stderr=subprocess.PIPE, check=False)


@pytest.mark.parametrize(("times", "code"), [(1, 1), (100_000, 141)])  # found at the end, or in the midst of printing
def test_a_reader_that_has_gone(times: int, code: int) -> None:
    """The code of the check where there is one; else the shell's for a closed pipe. Never 0, and no complaint."""
    reading, writing = os.pipe()
    os.close(reading)
    done = printing("x", times, writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (code, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
@pytest.mark.parametrize("times", [1, 100_000])
def test_a_full_disk(times: int) -> None:
    with Path("/dev/full").open("wb") as full:
        done = printing("x", times, full.fileno())
    assert (done.returncode, done.stderr) == (2, b"align-x: error: [Errno 28] No space left on device\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_the_terminal_cannot_show_is_escaped(encoding: str) -> None:
    done = printing("caf\udce9 ─\n", 1, subprocess.PIPE, PYTHONIOENCODING=f"{encoding}:strict")
    assert (done.returncode, done.stderr) == (1, b"")
    line = "─" if encoding == "utf-8" else r"\u2500"
    assert done.stdout.decode(encoding).strip() == rf"caf\udce9 {line}"


# ── progress ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_phases_in_a_log_are_one_line_each() -> None:
    stream = io.StringIO()
    progress = Progress(stream=stream)
    with progress.phase("trace"):
        pass
    with pytest.raises(ZeroDivisionError), progress.phase("check"):
        raise ZeroDivisionError
    first, second = stream.getvalue().splitlines()
    assert first.startswith("  ✓ trace (")
    assert second.startswith("  ✗ check (")
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_sees_the_phase_while_it_runs() -> None:
    stream = Terminal()
    with Progress(stream=stream).phase("trace"):
        assert "… trace" in stream.getvalue()


def test_a_bar_passes_everything_on_and_counts() -> None:
    stream = Terminal()
    assert list(Progress(stream=stream).bar("hashes", "abcd", 4)) == list("abcd")
    assert "] 3/4" in stream.getvalue()


def test_a_part_of_a_phase_is_seen_and_leaves_no_line() -> None:
    stream, log = Terminal(), io.StringIO()
    assert list(Progress(stream=stream).track("trial 1", "cd", 4, done=2)) == list("cd")
    assert "trial 1 [" in stream.getvalue()
    assert "] 2/4" in stream.getvalue()
    assert "] 0/4" not in stream.getvalue()
    assert "\n" not in stream.getvalue()
    progress = Progress(stream=log)
    assert list(progress.track("trial 1", "cd", 4)) == list("cd")
    assert (log.getvalue(), progress.finished) == ("", [])


def test_quiet_is_quiet() -> None:
    stream = Terminal()
    progress = Progress(quiet=True, stream=stream)
    with progress.phase("trace"):
        list(progress.bar("hashes", "ab", 2))
    assert stream.getvalue() == ""


def wait_for(stream: io.StringIO, text: str) -> None:
    deadline = time.monotonic() + 20
    while text not in stream.getvalue():
        assert time.monotonic() < deadline, f"{text!r} is not in {stream.getvalue()!r}"
        time.sleep(0.01)


def reporters() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_a_log_hears_of_a_step_that_takes_long() -> None:
    log = io.StringIO()
    progress = Progress(stream=log, every=0.02)
    with progress.phase("calibrate"):
        wait_for(log, "  … calibrate (0 s)\n")
        items = progress.track("images", range(5), 5)
        next(items)
        next(items)
        wait_for(log, "  … images 1/5 (0 s)\n")
        items.close()  # type: ignore[attr-defined]
        log.truncate(0)
        wait_for(log, "  … calibrate (0 s)\n")
        progress.show("layer 3 of 9")
        wait_for(log, "  … layer 3 of 9 (0 s)\n")
        assert len(reporters()) == 1
    assert reporters() == []
    assert log.getvalue().splitlines()[-1].startswith("  ✓ calibrate (")
    for _ in progress.bar("hashes", "ab", 2):
        wait_for(log, "  … hashes 1/2 (0 s)\n" if _ == "b" else "  … hashes 0/2 (0 s)\n")
    assert reporters() == []


def test_nothing_runs_on_after_a_step_that_failed() -> None:
    progress = Progress(stream=io.StringIO(), every=0.01)

    def fails() -> None:
        assert len(reporters()) == 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), progress.phase("outer"), progress.phase("inner"):
        fails()
    assert reporters() == []


@pytest.mark.parametrize(("quiet", "stream"), [(True, io.StringIO()), (False, Terminal())])
def test_no_thread_where_nobody_reads_a_log(quiet: bool, stream: io.StringIO) -> None:
    with Progress(quiet, stream, every=0.01).phase("trace"):
        assert reporters() == []


def test_a_stream_that_is_closed_is_no_error() -> None:
    log = io.StringIO()
    progress = Progress(stream=log, every=0.01)
    with progress.phase("trace"):
        log.close()
        time.sleep(0.05)
    progress.warn("only 3")
    assert [title for title, _ in progress.finished] == ["trace"]
    assert list(Progress(stream=log).bar("hashes", "ab", 2)) == ["a", "b"]


def test_a_process_without_stderr() -> None:
    """The result and the exit code stay, and stdout gets nothing that is not its own."""
    script = (
        "import sys; from align_runtime.console import *; from align_runtime.progress import Progress\n"
        "from align_runtime.errors import BundleError\n"
        "def body(options):\n"
        "    with Progress().phase('trace'): pass\n"
        "    raise BundleError('gone')\n"
        "sys.exit(run(CommandParser('align-x'), [], body))"
    )
    environment = {"PYTHONPATH": str(Path(align_runtime.__file__).parents[1])}
    for redirection in ("2>&-", "2>/dev/full"):
        command = ["/bin/sh", "-c", f'"$0" -c "$1" {redirection}', sys.executable, script]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False)
        assert (done.returncode, done.stdout) == (2, b"")


def test_table_aligns() -> None:
    assert table(["a", "size"], [["xyz", "1"], ["b", "1000"]], right=(1,)) == [
        "a    size",
        "───  ────",
        "xyz     1",
        "b    1000",
    ]


def test_a_warning_is_a_line_and_nothing_when_quiet() -> None:
    log, terminal, quiet = io.StringIO(), Terminal(), io.StringIO()
    for stream, silent in ((log, False), (terminal, False), (quiet, True)):
        Progress(silent, stream).warn("only 3")
    assert log.getvalue() == "  ! only 3\n"
    assert terminal.getvalue().endswith("\x1b[K  ! only 3\n")
    assert quiet.getvalue() == ""
