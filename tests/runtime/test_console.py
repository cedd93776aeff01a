"""What the commands share: exit codes, one-line errors, progress that is quiet where nobody looks."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

import align_runtime
from align_runtime.console import Progress, run, table
from align_runtime.errors import BundleError, ParityError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def raising(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (BundleError("no such bundle"), 2, "align-x: error: no such bundle\n"),
        (ParityError("vision", "max_abs", 1e-5, 1e-3, "cat"), 1, "align-x: error: vision: max_abs is 0.001"),
        (KeyboardInterrupt(), 130, "align-x: interrupted\n"),
        (OSError(28, "No space left on device", "x.onnx"), 2, "align-x: error: [Errno 28] No space left on device"),
    ],
)
def test_errors_are_one_line_and_a_code(
    error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("align-x", lambda: raising(error)) == code
    printed = capsys.readouterr().err
    assert printed.startswith(text)
    assert printed.count("\n") == 1


def test_other_errors_are_ours_and_show_themselves() -> None:
    with pytest.raises(ZeroDivisionError):
        run("align-x", lambda: int(1 / 0))


PRINTS = """
import sys
from align_runtime.console import run
sys.exit(run("align-x", lambda: print(sys.argv[1] * int(sys.argv[2])) or 1))
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


def test_table_aligns() -> None:
    assert table(["a", "size"], [["xyz", "1"], ["b", "1000"]], right=(1,)).splitlines() == [
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
