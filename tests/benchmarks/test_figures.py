"""The generator: pages from made-up results, and errors for results that are missing or malformed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import figures
from benchmarks.figures import END, SECTIONS, START, Results, headline_figures, page, with_headlines
from benchmarks.result_files import ResultFileError
from benchmarks.sections.headline import HEADINGS
from support.benchmark_results import made_up, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path, made_up())


def read(folder: Path) -> Results:
    return Results(folder, folder / "evaluation.json")


def cells(text: str, first: str) -> list[str]:
    """The other cells of the only row whose first cell is `first`."""
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in row.strip("|").split("|")][1:]


def test_every_section_has_its_heading_conditions_and_raw_values(folder: Path) -> None:
    parts = page(read(folder)).split("\n## ")[1:]
    assert [part.splitlines()[0] for part in parts] == [section.title for section in SECTIONS]
    for section, part in zip(SECTIONS, parts, strict=True):
        assert f"](../{section.path})" in part
        if section.source != "evaluation":
            assert "Measured on 2026-11-25: a processor (avx2), 2 cores; ONNX Runtime 1.32" in part


def test_contents_link_to_every_section(folder: Path) -> None:
    text = page(read(folder))
    assert re.findall(r"^- \[(.*)\]\(#", text, flags=re.MULTILINE) == [section.title for section in SECTIONS]


def test_figures_are_those_of_the_results(folder: Path) -> None:
    text = page(read(folder))
    assert cells(text, "our graph, OpenVINO in FP32 | 1 | 1 | wall clock")[3:] == ["1.50×", "1.0e-06"]
    assert cells(text, "`embed_texts`, which sorts texts by length")[:3] == ["2 captions", "wall clock", "4.00×"]
    assert cells(text, "images 1 | int8")[1:] == ["FP32 of the same bundle", "2.00×"]
    assert cells(text, "1×1 convolutions and the stem") == ["75.0 ms, 75.0 %", "30.0 ms, 60.0 %"]
    assert cells(text, "text FP32, batch 8 of 12 tokens") == ["1.000", "20.0", "40.0"]
    assert cells(text, "no limit") == ["200", "400", "400", "26.7"]  # 8 clients, 0.3 s on average
    assert cells(text, "2, first come, first served") == ["100", "100", "100", "80.0"]
    assert cells(text, "plain calls of 64 texts") == ["1000", "100.0", "200.0", "0.50"]
    assert "Of 1500 requests 0 failed; of 27 rows" in text
    assert "throughput by a factor of 3.00" in text
    assert cells(text, "text | length") == ["length", "4: 5.000, 8: 10.0"]
    assert cells(text, "a step") == ["0.9100 / 0.9500", "–"]
    assert cells(text, "both together, as `--fp16` does") == ["0.99999", "0.50000"]  # rounded down
    assert cells(text, "500") == ["histograms", "4000", "2.00 GiB", "10.0 MB"]
    assert "50 M weights" in text
    assert cells(text, "int8") == ["64: 1.000, 0.988, 0.500"] * 3
    assert cells(text, "`towers=('text',), streams=1`") == ["1200 MiB", "1400 MiB", "70 MiB", "1500 MiB"]


def test_a_changed_result_changes_the_page(folder: Path) -> None:
    before = page(read(folder))
    results = made_up()
    results["memory"]["seconds"] = 250.0
    after = page(read(write(folder, results)))
    assert after == before.replace("| 100 s |", "| 250 s |") != before


def test_headline_figures(folder: Path) -> None:
    text = headline_figures(read(folder))
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 11
    assert all(row.count(" | ") == len(HEADINGS) - 1 for row in rows)
    assert all("a processor, 2 cores" in row for row in rows[1:])
    assert cells(text, "8 images, FP32")[0] == "2.00×; one alone 2.00×"
    assert cells(text, "peak memory of a process, INT8")[:2] == ["400 MiB, 0.40×", "1000 MiB in FP32"]
    assert cells(text, "FP16 graphs, smallest mean-centred cosine, emulated")[0] == "0.99975"
    assert cells(text, "INT8 vision graph of align-tiny, mean cosine with the reference")[:2] == [
        "0.9700", "0.9800, other, the best of 1 other tools",
    ]  # fmt: skip
    assert cells(text, "INT8 align-tiny, zero-shot top-1 over 64 classes")[:2] == ["97.5 %", "98.0 % in FP32"]


def test_headline_links_lead_to_headings_of_the_page(folder: Path) -> None:
    results = read(folder)
    anchors = re.findall(r"\]\(docs/benchmarks\.md#(.*?)\)", headline_figures(results))
    headings = re.findall(r"^## (.*)$", page(results), flags=re.MULTILINE)
    assert len(anchors) == 10
    assert set(anchors) <= {heading.lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("source", [section.source for section in SECTIONS])
def test_a_missing_file_is_named(folder: Path, source: str) -> None:
    (folder / f"{source}.json").unlink()
    with pytest.raises(ResultFileError, match="not found") as caught:
        page(read(folder))
    assert caught.value.file == folder / f"{source}.json"


@pytest.mark.parametrize("content", ["", "{", "[]", "3"])
def test_a_file_that_holds_no_object_is_named(folder: Path, content: str) -> None:
    (folder / "vision.json").write_text(content)
    with pytest.raises(ResultFileError) as caught:
        page(read(folder))
    assert caught.value.file == folder / "vision.json"


def without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda result: result.pop(key)


@pytest.mark.parametrize(
    ("source", "damage"),
    [
        ("vision", without("cases")),
        ("vision", lambda result: result["cases"][0].update(clock="sundial")),
        ("text", lambda result: result["cases"].pop()),
        ("text", lambda result: result.update(cases=3)),
        ("int8", lambda result: result["cases"][0]["seconds"].update(int8=[1.0, 2.0, 3.0])),
        ("int8", lambda result: result["cases"][0]["seconds"].update(int8=[])),
        ("bench", lambda result: result["cases"].pop()),
        ("bench", lambda result: result.update(starts=[])),
        ("profile", lambda result: result.update(graphs={})),
        ("bench", lambda result: result.update(others=[{}])),
        ("roofline", without("one_pass_swish")),
        ("threads", lambda result: result["beside"][0]["rates"].pop("one core each")),
        ("ideas", lambda result: result["cases"][0].update(idea="a rumour")),
        ("cpp", without("parts")),
        ("align_bench", lambda result: result["starts"][0].update(peak_bytes="much")),
        ("memory", lambda result: result.update(resident_bytes=[])),
        ("fp16", lambda result: result["recipes"].pop()),
        ("ablation", lambda result: result["checkpoints"]["align-tiny"].update(draws={})),
        ("dtypes", lambda result: result["cases"].pop()),
        ("int8_peers", lambda result: result["checkpoints"]["align-tiny"].update(draws={})),
        ("trained", lambda result: result["checkpoints"]["lite9"].update(draws={})),
        ("full_size", without("graphs")),
        ("calibration", lambda result: result["machine"].pop("date")),
        ("evaluation", without("shapes")),
    ],
)
def test_a_malformed_file_is_named(folder: Path, source: str, damage: Callable[[dict[str, Any]], object]) -> None:
    results = made_up()
    damage(results[source])
    write(folder, results)
    with pytest.raises(ResultFileError, match="malformed") as caught:
        page(read(folder))
    assert caught.value.file == folder / f"{source}.json"
    assert len(str(caught.value)) < 500


def test_a_headline_figure_without_its_result_names_the_file(folder: Path) -> None:
    results = made_up()
    del results["align_bench"]["starts"][1]
    with pytest.raises(ResultFileError, match="malformed") as caught:
        headline_figures(read(write(folder, results)))
    assert caught.value.file == folder / "align_bench.json"


def test_only_the_block_between_the_markers_is_replaced(folder: Path) -> None:
    results = read(folder)
    text = with_headlines(f"before\n{START}old\n{END}after\n", results)
    assert text == f"before\n{START}{headline_figures(results)}{END}after\n"
    assert with_headlines(text, results) == text


@pytest.mark.parametrize("readme", ["", START, END, END + START, START + START + END])
def test_markers_are_needed_once(folder: Path, readme: str) -> None:
    with pytest.raises(ValueError, match="README"):
        with_headlines(readme, read(folder))


def test_the_command_ends_with_an_error_and_writes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "Results", lambda: read(folder))
    monkeypatch.setattr(figures, "README", tmp_path / "README.md")
    monkeypatch.setattr(figures, "PAGE", tmp_path / "docs" / "benchmarks.md")
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    for name, path in (("page", "SCALE"), ("chart", "SCALE_CHART")):  # which need results of a GPU
        monkeypatch.setattr(figures.scale, name, lambda _, name=name: name)
        monkeypatch.setattr(figures, path, tmp_path / "docs" / name)
    (tmp_path / "README.md").write_text(START + END)
    (folder / "vision.json").rename(folder / "moved.json")
    with pytest.raises(SystemExit) as ended:
        figures.main()
    assert "vision.json" in str(ended.value.code)
    assert not (tmp_path / "docs").exists()
    (folder / "moved.json").rename(folder / "vision.json")
    figures.main()
    assert (tmp_path / "docs" / "benchmarks.md").read_text() == page(read(folder))
    assert headline_figures(read(folder)) in (tmp_path / "README.md").read_text()
    assert [(tmp_path / "docs" / name).read_text() for name in ("page", "chart")] == ["page", "chart"]
