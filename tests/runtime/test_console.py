"""What the commands share: exit codes, one-line errors, arguments, streams and tables."""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import align_runtime
from align_runtime.console import CommandParser, add_output_options, positive_int, run, table
from align_runtime.errors import BundleError, InputError, ParityError


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


def test_table_aligns() -> None:
    assert table(["a", "size"], [["xyz", "1"], ["b", "1000"]], right=(1,)) == [
        "a    size",
        "───  ────",
        "xyz     1",
        "b    1000",
    ]
