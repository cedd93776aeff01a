"""The record of a build and its JSON."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from align_calibration.ranges import TensorRange
from align_exporter.report.record import EDGES, SCHEMA_VERSION, BuildRecord, ErrorHistogram
from align_exporter.report.render import write_report
from align_runtime.graph_entry import Island
from support.build_records import tiny_record
from support.report_pages import with_graph, with_parity, written


def test_histogram_counts_everything_once() -> None:
    differences = np.array([[0.0, 1e-30, -1e-11], [1e-10, -3e-5, 0.5], [1.0, -2.0, np.inf], [np.nan, np.nan, 1.5e-5]])
    histogram = ErrorHistogram.of(differences.astype(np.float32))
    assert histogram.edges == EDGES
    assert (EDGES[0], EDGES[-1], len(histogram.counts)) == (-10, 0, len(EDGES) + 1)
    assert sum(histogram.counts) == differences.size
    assert histogram.counts[0] == 3  # exact zero, and values below every edge
    assert histogram.counts[-1] == 5  # 1 and more, infinite, not a number
    for value in (3e-5, 1.5e-5, 0.5):
        index = next(i for i, edge in enumerate(EDGES) if edge > math.log10(value))
        assert histogram.counts[index] == 1, value


def test_histogram_and_rows_must_fit() -> None:
    with pytest.raises(ValueError, match="2 counts for 2 edges"):
        ErrorHistogram((-1.0, 0.0), (1, 2))


def test_rows_need_labels(record: BuildRecord) -> None:
    with pytest.raises(ValueError, match="8 cosines for 0 labels"):
        replace(record.graphs[0], labels=())


def test_json_holds_the_whole_record(record: BuildRecord, tmp_path: Path) -> None:
    _, content = written(tmp_path, record)
    assert content["schema_version"] == SCHEMA_VERSION == 2
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


def test_json_has_null_for_infinity_and_nan(record: BuildRecord, tmp_path: Path) -> None:
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
