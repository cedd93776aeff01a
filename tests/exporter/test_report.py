"""The report: what it says is what the record holds, and the page needs and runs nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align_calibration.ranges import TensorRange
from align_exporter.report import figures, write_report
from align_exporter.report.charts import error_histogram, stacked_bar
from align_exporter.report.markup import Markup, element, escape
from align_exporter.report.range_chart import range_chart
from align_exporter.report.record import EDGES, BuildRecord, ErrorHistogram, GraphRecord, Phase
from align_runtime.graph_entry import Island
from align_runtime.precision import GraphContent
from support.build_records import large_record, tiny_record

ATTACK = "<script>alert('x')</script>\"&"
VOID = ("meta", "wbr")
HEADROOM = 8.0


class Page(HTMLParser):
    """A parsed page: its elements in order, its text, and what is wrong with its nesting."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.faults: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}> closes another element")

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="session")
def record(tiny_bundle: Path) -> BuildRecord:
    return tiny_record(tiny_bundle)


def written(folder: Path, record: BuildRecord) -> tuple[str, dict[str, Any]]:
    write_report(folder, record)
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return (folder / "report.html").read_text(encoding="utf-8"), content


def with_graph(record: BuildRecord, index: int, changed: GraphRecord) -> BuildRecord:
    return replace(record, graphs=(*record.graphs[:index], changed, *record.graphs[index + 1 :]))


def with_parity(record: GraphRecord, **values: float) -> GraphRecord:
    return replace(record, graph=replace(record.graph, parity=replace(record.graph.parity, **values)))


def svgs(page: str) -> list[str]:
    """All outermost drawings of `page`."""
    found, depth, start = [], 0, 0
    for tag in re.finditer(r"<(/?)svg\b", page):
        if tag[1]:
            depth -= 1
            if depth == 0:
                found.append(page[start : tag.start()] + "</svg>")
        else:
            start = tag.start() if depth == 0 else start
            depth += 1
    return found


# ── the record ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_histogram_counts_everything_once() -> None:
    differences = np.array([[0.0, 1e-30, -1e-11], [1e-10, -3e-5, 0.5], [1.0, -2.0, np.inf], [np.nan, np.nan, 1.5e-5]])
    histogram = ErrorHistogram.of(differences.astype(np.float32))
    assert histogram.edges == EDGES
    assert (EDGES[0], EDGES[-1], len(histogram.counts)) == (-10, 0, len(EDGES) + 1)
    assert sum(histogram.counts) == differences.size
    assert histogram.counts[0] == 3  # exact zero, and what is smaller than every edge
    assert histogram.counts[-1] == 5  # 1 and more, infinite, not a number
    for value in (3e-5, 1.5e-5, 0.5):
        index = next(i for i, edge in enumerate(EDGES) if edge > math.log10(value))
        assert histogram.counts[index] == 1, value


def test_histogram_and_rows_must_fit() -> None:
    with pytest.raises(ValueError, match="2 counts for 2 edges; one more"):
        ErrorHistogram((-1.0, 0.0), (1, 2))


def test_rows_need_labels(record: BuildRecord) -> None:
    with pytest.raises(ValueError, match="8 cosines under 0 labels"):
        replace(record.graphs[0], labels=())


def test_json_holds_the_whole_record(record: BuildRecord, tmp_path: Path) -> None:
    _, content = written(tmp_path, record)
    assert content["schema_version"] == 1
    assert content["built"] == record.built
    assert content["provenance"]["files"] == record.provenance.files
    assert [phase["title"] for phase in content["phases"]] == [phase.title for phase in record.phases]
    for described, graph in zip(content["graphs"], record.graphs, strict=True):
        assert described["graph"]["file"] == graph.graph.file
        assert described["graph"]["parity"]["max_abs"] == graph.graph.parity.max_abs
        assert described["passed"] is True
        assert ErrorHistogram(**{key: tuple(value) for key, value in described["errors"].items()}) == graph.errors
        assert tuple(described["cosines"]) == graph.cosines
        assert described["graph"]["content"]["macs"] == graph.graph.content.macs
        islands = [Island.from_json(each, "here") for each in described["graph"]["islands"]]
        assert tuple(islands) == graph.graph.islands
    for tower, tensors in record.ranges.items():
        finite = [each for each in tensors if math.isfinite(each.rounding_error)]
        read = [TensorRange(**each) for each in content["ranges"][tower] if each["rounding_error"] is not None]
        assert read == finite


def test_json_has_null_for_what_is_no_number(record: BuildRecord, tmp_path: Path) -> None:
    overflowing = TensorRange("Mul", "Mul", float("inf"), float("nan"), float("nan"))
    failed = with_parity(record.graphs[0], max_abs=float("nan"), min_cosine=float("nan"))
    changed = replace(with_graph(record, 0, failed), ranges={"vision": (overflowing,)})
    _, content = written(tmp_path, changed)
    assert not re.search(r"\b(NaN|Infinity)\b", (tmp_path / "report.json").read_text(encoding="utf-8"))
    assert content["ranges"]["vision"][0] == {
        "tensor": "Mul",
        "operator": "Mul",
        "max_abs": None,
        "rms": None,
        "rounding_error": None,
    }
    assert content["graphs"][0]["graph"]["parity"]["max_abs"] is None
    assert content["graphs"][0]["passed"] is False


def test_same_record_gives_the_same_bytes(record: BuildRecord, tiny_bundle: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    write_report(tmp_path / "one", record)
    write_report(tmp_path / "two", tiny_record(tiny_bundle))
    for name in ("report.html", "report.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


# ── the page needs nothing, runs nothing, and is well formed ─────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", ["tiny", "large", "failed", "nothing"])
def test_page_is_well_formed(record: BuildRecord, tmp_path: Path, size: str) -> None:
    failed = with_graph(record, 0, with_parity(record.graphs[0], max_abs=float("nan")))
    records = {
        "tiny": record,
        "large": large_record(record),
        "failed": failed,
        "nothing": replace(record, graphs=(), ranges={}, phases=()),
    }
    source, _ = written(tmp_path, records[size])
    page = Page(source)
    assert source.startswith("<!DOCTYPE html>\n<html lang=")
    assert page.faults == []
    anchors = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(anchors) == len(set(anchors))
    for link in page.all("a"):
        assert link["href"] in ("report.json", "align.json") or str(link["href"])[1:] in anchors
    for name in {attributes["aria-labelledby"] for attributes in page.all("section")}:
        assert name in anchors
    assert all(heading["scope"] for heading in page.all("th"))
    drawings = svgs(source)
    assert drawings
    for drawing in drawings:
        ET.fromstring(drawing)
    ranks = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert ranks.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(ranks))


def test_the_check_of_the_nesting_can_fail() -> None:
    assert Page("<p><b>x</p></b>").faults
    assert Page("<p>x").faults
    assert Page("<p>x</p><p>y<wbr></p>").faults == []


def test_page_loads_and_runs_nothing(record: BuildRecord, tmp_path: Path) -> None:
    source, _ = written(tmp_path, record)
    page = Page(source)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "img", "image", "iframe", "object", "embed", "form", "base", "use"}
    assert "//" not in re.sub(r"<title>.*?</title>", "", source)
    assert "@import" not in source
    assert set(re.findall(r"url\(([^)]*)\)", source)) == {"#hatch"}
    for _, attributes in page.elements:
        assert not attributes.keys() & {"src", "srcset", "style", "xlink:href"}
        assert not [name for name in attributes if name.startswith("on")]


def test_policy_allows_the_one_style_sheet_only(record: BuildRecord, tmp_path: Path) -> None:
    source, _ = written(tmp_path, record)
    (policy,) = [
        attributes["content"]
        for attributes in Page(source).all("meta")
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    (style,) = re.findall(r"<style>(.*?)</style>", source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert source.index("Content-Security-Policy") < source.index("<style>")


def test_everything_from_outside_is_escaped(record: BuildRecord, tmp_path: Path) -> None:
    graph = record.graphs[3]
    hostile = replace(
        graph,
        graph=replace(
            graph.graph,
            file=f"onnx/{ATTACK}",
            data=ATTACK,
            variant=ATTACK,
            parity=replace(graph.graph.parity, worst=ATTACK),
            islands=(Island((ATTACK,), (ATTACK,)),),
            content=GraphContent({ATTACK: 1}, {ATTACK: 1}),
        ),
        labels=tuple(f"{ATTACK}{index}" for index in range(len(graph.labels))),
    )
    changed = replace(
        with_graph(record, 3, hostile),
        provenance=replace(
            record.provenance,
            name=ATTACK,
            revision=ATTACK,
            files={ATTACK: ATTACK},
            options={ATTACK: ATTACK},
            tools={ATTACK: ATTACK},
        ),
        ranges={"vision": (TensorRange(ATTACK, ATTACK, 1.0, 0.1, 2e-4), *record.ranges["vision"])},
        phases=(Phase(ATTACK, 1.0),),
        built=ATTACK,
        machine={ATTACK: ATTACK},
    )
    source, content = written(tmp_path, changed)
    page = Page(source)
    assert "<script" not in source
    assert page.faults == []
    assert not page.all("script")
    assert page.text.count(ATTACK) >= 15
    assert content["provenance"]["name"] == ATTACK


def test_markup_escapes_text_but_not_itself() -> None:
    assert escape('<b> & "') == "&lt;b&gt; &amp; &quot;"
    assert element("p", element("b", "<"), "<", title='"', x=1 / 3, y=None) == (
        '<p title="&quot;" x="0.33"><b>&lt;</b>&lt;</p>'
    )
    assert escape("a\0b\x1b\ud800\u0085\n") == "a\ufffdb\ufffd\ufffd\ufffd\n"
    assert isinstance(element("p"), Markup)


def test_names_that_are_no_text_are_written_all_the_same(record: BuildRecord, tmp_path: Path) -> None:
    """A folder on Linux may have any bytes as its name."""
    source, content = written(tmp_path, replace(record, phases=(Phase("read caf\udce9\x07", 1.0),)))
    assert "read caf\ufffd\ufffd" in source
    assert content["phases"][0]["title"] == "read caf\udce9\x07"


# ── the page says what the record holds ──────────────────────────────────────────────────────────────────────────────


def test_every_graph_island_and_phase_appears(record: BuildRecord, tmp_path: Path) -> None:
    source, _ = written(tmp_path, record)
    page = Page(source)
    assert "✓ All 5 graphs passed" in page.text
    for index, graph in enumerate(record.graphs):
        assert f'id="graph-{index}"' in source
        assert graph.graph.file in page.text
        assert figures.scientific(graph.graph.parity.max_abs) in page.text
        assert f"{graph.graph.limits.min_cosine:g}" in page.text
        assert figures.size(graph.bytes) in page.text
        assert graph.graph.parity.worst in page.text
        for island in graph.graph.islands:
            assert all(text in page.text for text in (*island.nodes, *island.reasons))
    assert sum(len(graph.graph.islands) for graph in record.graphs) == 4
    for phase in record.phases:
        assert phase.title in page.text
        assert figures.duration(phase.seconds) in page.text
    for name, sha256 in record.provenance.files.items():
        assert name in page.text
        assert sha256 in page.text
    for text in (*record.provenance.tools.values(), record.built, record.machine["cpu"], "align-verify ."):
        assert text in page.text
    assert "onnx/text_model.onnx_data belongs to several graphs" in page.text


@pytest.mark.parametrize("value", [0.1, float("nan"), float("inf")])
def test_a_graph_outside_its_limits_is_not_said_to_have_passed(
    record: BuildRecord, tmp_path: Path, value: float
) -> None:
    source, content = written(tmp_path, with_graph(record, 1, with_parity(record.graphs[1], max_abs=value)))
    text = Page(source).text
    assert "✗ 1 of 5 graphs failed" in text
    assert "onnx/text_model.onnx: max_abs is" in text
    assert "All 5 graphs passed" not in text
    assert text.count("✗ failed") == 2  # in the table and over the graph's own part
    assert [graph["passed"] for graph in content["graphs"]] == [True, False, True, True, True]


def test_no_graph_is_no_success(record: BuildRecord, tmp_path: Path) -> None:
    text = Page(written(tmp_path, replace(record, graphs=()))[0]).text
    assert "✗ No graph was built" in text
    assert "passed" not in text


def test_without_fp16_there_are_no_ranges(record: BuildRecord, tmp_path: Path) -> None:
    source, content = written(tmp_path, replace(record, graphs=record.graphs[:3], ranges={}))
    text = Page(source).text
    assert "No FP16 graph was built, so no activation ranges were measured." in text
    assert 'class="chart ranges"' not in source
    assert "FP32 islands" not in text
    assert content["ranges"] == {}


def test_worst_samples_come_first_and_once(record: BuildRecord, tmp_path: Path) -> None:
    graph = replace(record.graphs[0], labels=("a", "b", "c", "a", "b"), cosines=(0.9, 0.8, float("nan"), 0.7, 0.99))
    source, _ = written(tmp_path, with_graph(record, 0, graph))
    table = source.split("The lowest cosines of 3 samples", 1)[1].split("</table>", 1)[0]
    rows = re.findall(r'<th scope="row">(.*?)</th><td class="number">(.*?)</td>', table)
    assert rows == [("c", "not a number"), ("a", "0.7000000"), ("b", "0.8000000")]


# ── the charts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_histogram_draws_a_bar_per_bin_and_both_lines() -> None:
    histogram = ErrorHistogram.of(np.array([0.0, 1e-6, 1.1e-6, 1e-3, np.nan]))
    drawing = ET.fromstring(error_histogram(histogram, largest=1e-3, allowed=5e-3))
    titles = [bar.findtext("title") for bar in drawing.iter("rect")]
    assert titles == [
        "below 1.0e-10, exact zeros included: 1 components",
        "1.0e-06 to 1.8e-06: 2 components",
        "1.0e-03 to 1.8e-03: 1 components",
        "1.0e+00 and more, or not a number: 1 components",
    ]
    lines = {line.get("class"): float(line.get("x1", "").rstrip("%")) for line in drawing.iter("line")}
    bins = len(histogram.counts)
    assert lines["line measured"] == pytest.approx(100 * (1 + 28) / bins, abs=1e-3)  # 1e-3 is the 29th edge
    assert lines["line measured"] < lines["line limit"] < 100
    texts = [text.text for text in drawing.iter("text")]
    assert {"largest 1e-03", "allowed 5e-03"} <= set(texts)


@pytest.mark.parametrize("largest", [0.0, 1e-30, 3.0, float("inf"), float("nan")])
def test_histogram_lines_stay_inside(largest: float) -> None:
    drawing = ET.fromstring(error_histogram(ErrorHistogram.of(np.zeros(3)), largest, 5e-5))
    for line in drawing.iter("line"):
        assert 0 <= float(line.get("x1", "").rstrip("%")) <= 100


def tensors(*values: float) -> tuple[TensorRange, ...]:
    return tuple(
        TensorRange(f"text_model.encoder.layer.{index}.output/Add", "Add", value, value / 4, 2e-4)
        for index, value in enumerate(values)
    )


def test_range_chart_marks_what_was_kept() -> None:
    ranges = tensors(1.0, 1e5, 1e-7)
    kept = {ranges[1].tensor, ranges[2].tensor}
    drawing = ET.fromstring(range_chart("text", ranges, kept, HEADROOM))
    groups = {str(group.findtext("title")).split(" ")[0]: group for group in drawing.iter("g")}
    assert groups.keys() == {tensor.tensor for tensor in ranges}
    for tensor in ranges:
        group, is_kept = groups[tensor.tensor], tensor.tensor in kept
        assert (group.get("class") == "tensor kept") == is_kept
        assert (group.find("svg/path") is not None) == is_kept  # a diamond, not only another colour
        assert (group.find("circle") is None) == is_kept
        assert ("kept in FP32" in str(group.findtext("title"))) == is_kept
    assert "2 of them stayed FP32" in str(drawing.get("aria-label"))


def test_range_chart_orders_tensors_and_limits_by_size() -> None:
    ranges = tensors(1e5, 65504 / HEADROOM, 1.0, 2**-14, 1e-7)
    drawing = ET.fromstring(range_chart("text", ranges, (), HEADROOM))
    dots = [float(dot.get("cy", "")) for dot in drawing.iter("circle")]
    assert dots == sorted(dots)  # down the page
    lines = [line for line in drawing.iter("line") if str(line.get("class")).startswith("line")]
    end, headroom, normal = (float(line.get("y1", "")) for line in lines)
    assert dots[0] < end < headroom == dots[1] < dots[2] < normal == dots[3] < dots[4]


def test_an_attention_mask_does_not_squeeze_the_others(record: BuildRecord, tmp_path: Path) -> None:
    def heights(*values: float) -> list[float]:
        drawing = ET.fromstring(range_chart("text", tensors(*values), (), HEADROOM))
        return [float(dot.get("cy", "")) for dot in drawing.iter("circle")]

    masked, infinite, undefined = heights(3.4e38, 1.0), heights(math.inf, 1.0), heights(math.nan, 1.0)
    assert masked[0] == infinite[0] == undefined[0] < 20
    assert masked[1] - masked[0] > 100
    source, _ = written(tmp_path, replace(record, ranges={"text": tensors(3.4e38, 1.0, math.nan)}))
    assert "at the upper end: 2 beyond the axis" in Page(source).text


def test_worst_tensors_are_named(record: BuildRecord, tmp_path: Path) -> None:
    source, _ = written(tmp_path, large_record(record))
    rows = re.findall(
        r"◆ (?:island|rule)|<td>no</td>", source.split('id="ranges-vision"', 1)[1].split("</table>", 1)[0]
    )
    kept = list(large_record(record).kept("vision").values())
    assert len(rows) == 20
    assert rows.count("◆ island") == kept.count("island") == 7
    assert rows[:7] == ["◆ island"] * 7
    assert "rule" in kept
    assert "◆ rule" not in rows  # large by nature, as an attention mask is, and no finding


def test_hundreds_of_tensors_stay_small(record: BuildRecord, tmp_path: Path) -> None:
    large = large_record(record)
    source, _ = written(tmp_path, large)
    assert [len(ranges) for ranges in large.ranges.values()] == [700, 400]
    assert len(source.encode()) < 1_000_000
    assert source.count('class="tensor"') + source.count('class="tensor kept"') == 1100 + 4  # and the legends' marks
    charts = [ET.fromstring(drawing) for drawing in svgs(source) if 'class="chart ranges"' in drawing]
    ticks = [[text.text for text in chart.iter("text") if str(text.text).isdecimal()] for chart in charts]
    assert ticks == [["0", "10", "20", "30", "40", "50"], ["0", "2", "4", "6", "8", "10"]]


def test_shares_are_drawn_to_scale_and_hatched() -> None:
    drawing = ET.fromstring(stacked_bar({"float32": 1, "float16": 3, "int8": 0}))
    half, full = drawing.findall("g")
    assert half.findtext("title") == "float16: 75.00\u00a0%"
    assert [box.get("width") for box in half.iter("rect")] == ["75%"]
    assert [(box.get("x"), box.get("width"), box.get("fill")) for box in full.iter("rect")] == [
        ("75%", "25%", None),
        ("75%", "25%", "url(#hatch)"),
    ]


def test_figures_never_round_to_something_better() -> None:
    def plain(part: float, whole: float) -> str:
        return figures.share(part, whole).replace("\u00a0", " ")

    assert [plain(0, 5), plain(5, 5), plain(0, 0)] == ["0 %", "100 %", "0 %"]
    assert [plain(99_999, 100_000), plain(1, 100_000), plain(1, 3)] == ["> 99.99 %", "< 0.01 %", "33.33 %"]
    assert figures.cosine(0.99999999) == "0.9999999"
    assert figures.cosine(1.0) == "1.0000000"
    assert [figures.scientific(value) for value in (4.44e-7, 5e-5, 0.0, math.inf)] == [
        "4.4e-07",
        "5e-05",
        "0",
        "infinite",
    ]
    assert [figures.amount(value) for value in (8.4e9, 62_100_000, 1234, 312)] == ["8.40 G", "62.1 M", "1.23 k", "312"]
    assert [figures.duration(value) for value in (0.42, 59.9, 148.2)] == ["0.4 s", "59.9 s", "2 min 28 s"]
