"""README and docs/benchmarks.md: figures are those of the committed results, links lead somewhere, the example runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.figures import PAGE, README, Results, page, with_headlines

TEXT = README.read_text(encoding="utf-8")


def test_headline_figures_are_those_of_the_committed_results() -> None:
    assert with_headlines(TEXT, Results()) == TEXT, "run `make figures` after a new result"


def test_page_is_that_of_the_committed_results() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(Results()), "run `make figures` after a new result"


def test_a_changed_figure_is_noticed() -> None:
    changed = re.sub(r"(\d\.\d\d)×", "9.99×", TEXT, count=1)
    assert changed != TEXT
    assert with_headlines(changed, Results()) == TEXT


def test_python_example_runs(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    monkeypatch.chdir(README.parent)
    exec(example.replace("build/align-tiny", str(tiny_bundle)), {})
    labels = dict(re.findall(r"^(\S+)\.png +(.+)$", capsys.readouterr().out, flags=re.MULTILINE))
    assert labels == {
        file.stem: file.stem.replace("-", " ") for file in Path("reference/align-tiny/demo").glob("*.png")
    }


@pytest.mark.parametrize("file", [README, PAGE], ids=lambda file: file.name)
def test_links_lead_to_files_that_exist(file: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", file.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (file.parent / link).exists(), link


def test_links_to_headings_of_the_page_exist() -> None:
    headings = re.findall(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(docs/benchmarks\.md#(.*?)\)", TEXT)) <= anchors
