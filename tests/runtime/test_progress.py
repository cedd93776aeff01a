"""Progress of a command: live on a terminal, lines in a log, quiet where nobody looks."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import align_runtime
from align_runtime.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


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


def test_a_warning_is_a_line_and_nothing_when_quiet() -> None:
    log, terminal, quiet = io.StringIO(), Terminal(), io.StringIO()
    for stream, silent in ((log, False), (terminal, False), (quiet, True)):
        Progress(silent, stream).warn("only 3")
    assert log.getvalue() == "  ! only 3\n"
    assert terminal.getvalue().endswith("\x1b[K  ! only 3\n")
    assert quiet.getvalue() == ""
