"""The charts of a report."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from align_bench.page import formatting
from align_calibration.ranges import TensorRange
from align_exporter.int8.fidelity import Fidelity
from align_exporter.int8.mixed_precision import Candidate
from align_exporter.report.charts import candidate_chart, error_histogram, range_chart, stacked_bar
from align_exporter.report.record import BuildRecord, ErrorHistogram
from support.build_records import large_record
from support.report_pages import Page, svgs, written

HEADROOM = 8.0


def test_histogram_draws_a_bar_per_bin_and_both_lines() -> None:
    histogram = ErrorHistogram.of(np.array([0.0, 1e-6, 1.1e-6, 1e-3, np.nan]))
    drawing = ET.fromstring(error_histogram(histogram, largest=1e-3, allowed=5e-3))
    titles = [bar.findtext("title") for bar in drawing.iter("rect")]
    assert titles == [
        "below 1.0e-10, exact zeros included: 1 components",
        "1.0e-06 to 1.8e-06: 2 components",
        "1.0e-03 to 1.8e-03: 1 components",
        "1.0e+00 or more, or not a number: 1 components",
    ]
    lines = {line.get("class"): float(line.get("x1", "").rstrip("%")) for line in drawing.iter("line")}
    bins = len(histogram.counts)
    assert lines["line measured"] == pytest.approx(100 * (1 + 28) / bins, abs=1e-3)  # 1e-3 is the 29th edge
    assert lines["line measured"] < lines["line limit"] < 100
    texts = [text.text for text in drawing.iter("text")]
    assert {"largest 1e-03", "limit 5e-03"} <= set(texts)


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
    assert "2 of them are kept in FP32" in str(drawing.get("aria-label"))


def test_range_chart_orders_tensors_and_limits_by_size() -> None:
    ranges = tensors(1e5, 65504 / HEADROOM, 1.0, 2**-14, 1e-7)
    drawing = ET.fromstring(range_chart("text", ranges, (), HEADROOM))
    dots = [float(dot.get("cy", "")) for dot in drawing.iter("circle")]
    assert dots == sorted(dots)  # down the page
    lines = [line for line in drawing.iter("line") if str(line.get("class")).startswith("line")]
    end, headroom, normal = (float(line.get("y1", "")) for line in lines)
    assert dots[0] < end < headroom == dots[1] < dots[2] < normal == dots[3] < dots[4]


def test_an_attention_mask_does_not_stretch_the_axis(record: BuildRecord, tmp_path: Path) -> None:
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


def test_rounding_never_makes_a_value_look_better() -> None:
    def plain(part: float, whole: float) -> str:
        return formatting.share(part, whole).replace("\u00a0", " ")

    assert [plain(0, 5), plain(5, 5), plain(0, 0)] == ["0 %", "100 %", "0 %"]
    assert [plain(99_999, 100_000), plain(1, 100_000), plain(1, 3)] == ["> 99.99 %", "< 0.01 %", "33.33 %"]
    assert formatting.cosine(0.99999999) == "0.9999999"
    assert formatting.cosine(1.0) == "1.0000000"
    ratios = (0.999, 0.29, 1.0, 1.239, math.nan)
    assert [formatting.times(ratio).replace("\u00a0", " ") for ratio in ratios] == [
        "0.99 ×",
        "0.29 ×",
        "1.00 ×",
        "1.23 ×",
        "not a number",
    ]
    assert [formatting.scientific(value) for value in (4.44e-7, 5e-5, 0.0, math.inf)] == [
        "4.4e-07",
        "5e-05",
        "0",
        "infinite",
    ]
    amounts = [formatting.amount(value) for value in (8.4e9, 62_100_000, 1234, 312)]
    assert amounts == ["8.40 G", "62.1 M", "1.23 k", "312"]
    assert [formatting.duration(value) for value in (0.42, 59.9, 148.2)] == ["0.4 s", "59.9 s", "2 min 28 s"]


# ── fidelity over the share of MACs in INT8 ──────────────────────────────────────────────────────────────────────────

CANDIDATES = (
    Candidate(("a", "b"), 0.75, Fidelity(cosine=0.999, agreement=1.0)),
    Candidate((), 1.0, Fidelity(cosine=0.99, agreement=0.9)),
    Candidate(("a", "b", "c"), 0.5, Fidelity(cosine=0.9995, agreement=0.97)),
)


def test_the_candidate_chart_has_a_dot_for_every_candidate_and_the_target() -> None:
    drawing = ET.fromstring(candidate_chart(CANDIDATES, [0.999, 0.99, 0.9995], "cosine", 0.9985))
    dots = drawing.findall("circle")
    titles = [dot.findtext("title").split(" with ")[0] for dot in dots]
    assert titles == ["cosine 0.99900", "cosine 0.99000", "cosine 0.99950"]
    assert [dot.get("class") for dot in dots] == ["dot taken", "dot", "dot"]
    across = [float(dot.get("cx").rstrip("%")) for dot in dots]
    assert across[2] < across[0] < across[1]  # by share
    assert across[0] == pytest.approx((across[1] + across[2]) / 2, abs=0.01)
    down = [float(dot.get("cy")) for dot in dots]
    assert down[2] < down[0] < down[1]  # the highest cosine on top
    (line,) = [line for line in drawing.findall("line") if line.get("class") == "line limit"]
    assert down[0] < float(line.get("y1")) < down[1]  # between the chosen candidate and one that misses it
    assert "target 0.9985" in [text.text for text in drawing.findall("text")]


def test_a_single_candidate_without_a_target_is_a_dot() -> None:
    drawing = ET.fromstring(candidate_chart(CANDIDATES[:1], [1.0], "agreement", None))
    assert len(drawing.findall("circle")) == 1
    assert not [line for line in drawing.findall("line") if line.get("class") in ("line limit", "curve")]
