"""What the commands share: exit codes, one-line errors, progress that is quiet where nobody looks."""

from __future__ import annotations

import io

import pytest

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
