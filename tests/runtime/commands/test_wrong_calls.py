"""What all commands do without their arguments."""

from __future__ import annotations

from typing import Any

import pytest

from align_runtime.commands import classify, inspect, verify


@pytest.mark.parametrize(
    ("command", "name"), [(classify, "align-classify"), (inspect, "align-inspect"), (verify, "align-verify")]
)
def test_a_wrong_call_is_one_line(command: Any, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"{name}: error: the following arguments are required: BUNDLE")
    assert printed.err.endswith(f"; see {name} --help\n")
    assert printed.err.count("\n") == 1
    assert printed.out == ""
