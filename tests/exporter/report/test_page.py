"""The page of a report: it shows the whole record, loads nothing and runs nothing."""

from __future__ import annotations

import base64
import hashlib
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from align_bench.page import formatting
from align_bench.page.markup import Markup, element, escape
from align_calibration.ranges import TensorRange
from align_exporter.report.record import BuildRecord, Phase
from align_runtime.graph_entry import Island
from align_runtime.precision import GraphContent
from support.build_records import large_record, with_int8
from support.report_pages import ATTACK, Page, svgs, with_graph, with_parity, written

# ── the page is well formed, loads nothing and runs nothing ──────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", ["tiny", "large", "failed", "nothing", "int8"])
def test_page_is_well_formed(record: BuildRecord, tmp_path: Path, size: str) -> None:
    failed = with_graph(record, 0, with_parity(record.graphs[0], max_abs=float("nan")))
    records = {
        "tiny": record,
        "large": large_record(record),
        "failed": failed,
        "nothing": replace(record, graphs=(), ranges={}, phases=()),
        "int8": with_int8(record, {"batch 1": 1.2}),
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
            parity=replace(graph.graph.parity, worst=dict.fromkeys(graph.graph.parity.worst, ATTACK)),
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
    assert escape("a\u202e\u2066\u200fb") == "a\ufffd\ufffd\ufffdb"
    assert isinstance(element("p"), Markup)


def test_names_that_are_not_utf8_are_replaced(record: BuildRecord, tmp_path: Path) -> None:
    """The name of a folder on Linux may be any bytes."""
    source, content = written(tmp_path, replace(record, phases=(Phase("read caf\udce9\x07 \u202e", 1.0),)))
    assert "read caf\ufffd\ufffd \ufffd" in source
    assert content["phases"][0]["title"] == "read caf\udce9\x07 \u202e"


# ── the page shows the record ────────────────────────────────────────────────────────────────────────────────────────


def test_every_graph_island_and_phase_appears(record: BuildRecord, tmp_path: Path) -> None:
    source, _ = written(tmp_path, record)
    page = Page(source)
    assert "✓ All 5 graphs passed" in page.text
    for index, graph in enumerate(record.graphs):
        assert f'id="graph-{index}"' in source
        assert graph.graph.file in page.text
        assert formatting.scientific(graph.graph.parity.max_abs) in page.text
        assert f"{graph.graph.limits.min_cosine:g}" in page.text
        assert formatting.size(graph.bytes) in page.text
        assert graph.graph.parity.worst["max_abs"] in page.text
        for island in graph.graph.islands:
            assert all(text in page.text for text in (*island.nodes, *island.reasons))
    assert sum(len(graph.graph.islands) for graph in record.graphs) == 4
    for phase in record.phases:
        assert phase.title in page.text
        assert formatting.duration(phase.seconds) in page.text
    for name, sha256 in record.provenance.files.items():
        assert name in page.text
        assert sha256 in page.text
    for text in (*record.provenance.tools.values(), record.built, record.machine["cpu"], "align-verify ."):
        assert text in page.text
    assert "onnx/text_model.onnx_data belongs to several graphs" in page.text


@pytest.mark.parametrize("value", [0.1, float("nan"), float("inf")])
def test_a_graph_outside_its_limits_has_failed(record: BuildRecord, tmp_path: Path, value: float) -> None:
    source, content = written(tmp_path, with_graph(record, 1, with_parity(record.graphs[1], max_abs=value)))
    text = Page(source).text
    assert "✗ 1 of 5 graphs failed" in text
    assert "onnx/text_model.onnx: max_abs is" in text
    assert "All 5 graphs passed" not in text
    assert text.count("✗ failed") == 2  # in the table and in the section of the graph
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


@pytest.mark.parametrize(
    ("speedups", "told", "slower"),
    [
        ({"batch 1": 1.5, "batch 8": 0.934}, "0.93 × as fast as FP32", True),
        ({"batch 1": 1.0}, "1.00 × as fast as FP32", True),
        ({"batch 1": 1.5, "batch 8": 1.28}, "1.28 × as fast as FP32", False),
        ({}, "speed not measured", False),
    ],
)
def test_the_verdict_says_whether_int8_was_faster(
    record: BuildRecord, tmp_path: Path, speedups: dict[str, float], told: str, slower: bool
) -> None:
    source, content = written(tmp_path, with_int8(record, speedups))
    text = Page(source).text.replace("\u00a0", " ")
    verdict = text.partition("Size and precision")[2].partition("Size and precision")[0]  # after the contents
    assert told in verdict
    assert ("INT8 was not faster" in verdict) == slower
    assert [entry["case"] for entry in content["graphs"][-1]["speed"]] == list(speedups)


def test_quantization_is_shown(record: BuildRecord, tmp_path: Path) -> None:
    source, content = written(tmp_path, with_int8(record, {"batch 1": 1.5}))
    section = Page(source.split(">Quantization<", 1)[1].split("<h2", 1)[0]).text.replace("\u00a0", " ")
    for text in ("percentile 99.99", "min-max", "blocks.3", "0.9960000", "98.00 %", "1.50 ×", "target 0.995"):
        assert text in section
    entry = content["graphs"][-1]
    assert entry["observers"][0] == {"observer": "percentile 99.99", "error": 1e-3, "samples": 200}
    assert entry["target"] == {"cosine": 0.995, "agreement": None}
    assert entry["candidates"][1] == {"kept": [], "int8_share": 1.0, "cosine": 0.99, "agreement": 0.9}
    assert entry["speed"][0]["baseline"] == "fp32"
    assert entry["speed"][0]["speedup"] == 1.5


def test_worst_samples_come_first_and_once(record: BuildRecord, tmp_path: Path) -> None:
    graph = replace(record.graphs[0], labels=("a", "b", "c", "a", "b"), cosines=(0.9, 0.8, float("nan"), 0.7, 0.99))
    source, _ = written(tmp_path, with_graph(record, 0, graph))
    table = source.split("The lowest cosines of 3 samples", 1)[1].split("</table>", 1)[0]
    rows = re.findall(r'<th scope="row">(.*?)</th><td class="number">(.*?)</td>', table)
    assert rows == [("c", "not a number"), ("a", "0.7000000"), ("b", "0.8000000")]
