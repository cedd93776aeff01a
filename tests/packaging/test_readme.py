"""What the README says is what the results say, and its example runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.readme import README, figures, renewed

TEXT = README.read_text(encoding="utf-8")


def test_figures_are_those_of_the_committed_results() -> None:
    assert renewed(TEXT) == TEXT, "run `make figures` after a new result"
    assert figures() in TEXT


def test_a_changed_figure_is_noticed() -> None:
    changed = TEXT.replace("MB, at most", "MB, nearly", 1)
    assert changed != TEXT
    assert renewed(changed) != changed


def test_python_example_runs(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    monkeypatch.chdir(README.parent)
    exec(example.replace("build/align-tiny", str(tiny_bundle)), {})
    printed = capsys.readouterr().out
    assert len(re.findall(r"\.png .* \d+%", printed)) == len(list(Path("reference/align-tiny/demo").glob("*.png")))


def test_folders_and_files_named_in_the_readme_exist() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (README.parent / link).exists(), link
