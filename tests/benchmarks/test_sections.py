"""Sections of the page from made-up results: targets, other tools, kinds of kernels, and how figures are written."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.measure_profile import group_of
from benchmarks.result_files import RESULTS, ROOT, read_json
from benchmarks.sections.embed import ray_lines, recall_rows, throughput_lines
from benchmarks.sections.layout import cosine, median_and_worst, milliseconds, share, table
from benchmarks.sections.peers import peer_lines
from benchmarks.sections.speed import by_kind
from benchmarks.sections.targets import (
    START_TARGETS,
    TARGETS,
    missed_targets,
    records_of,
    render,
    target_rows,
    with_record,
)
from benchmarks.sections.trained import trained_lines
from support.benchmark_results import bench, made_up
from support.int8_results import int8_peers, trained

BLOCK = "vision_model.encoder.blocks.3"


def test_every_target_has_a_row() -> None:
    rows = target_rows([bench()])
    assert len(rows) == len(TARGETS) + len(START_TARGETS)
    assert {row[4] for row in rows[: len(TARGETS)]} == {"2.00× [2.00 … 2.00]"}
    assert rows[-1][4] == "1.00 s (1.00 … 1.00)"


def test_noise_is_marked() -> None:
    assert all("(within noise)" in row[4] for row in target_rows([bench(noise=3.0)])[: len(TARGETS)])


def on(processor: str, **starts: float) -> dict[str, Any]:
    """A record of `processor`, and what its processes pay."""
    record = bench()
    record["machine"] = {**record["machine"], "processor": processor}
    record["starts"] = [{"import_seconds": 0.2, "load_seconds": 1.0, **starts}]
    return record


def test_other_processors_have_columns_of_their_own_and_the_first_one_stays_first() -> None:
    first, other = "A (avx512_vnni, avx2)", "A (avx2)"
    result = with_record(None, on(first))
    result = with_record(result, on(other, load_seconds=3.0))
    result = with_record(result, on(first, load_seconds=1.5))
    records = records_of(result)
    assert [record["machine"]["processor"] for record in records] == [first, other]
    assert [row[4:] for row in target_rows(records)][-1] == ("1.50 s (1.50 … 1.50)", "3.00 s (3.00 … 3.00)")
    assert "others" not in records[1]
    lines = render(result)
    assert any(line.endswith("| target | A, avx512_vnni | A, avx2 |") for line in lines)
    assert lines[-1].startswith("- Measured on 2026-11-25: A (avx2), 2 cores")


def test_int8_has_no_targets_without_vnni() -> None:
    missed = {processor: missed_targets(on(processor)) for processor in ("A (avx512_vnni)", "A (avx2)")}
    assert any("INT8" in line for line in missed["A (avx512_vnni)"])
    assert missed["A (avx2)"] == [line for line in missed["A (avx512_vnni)"] if "INT8" not in line] != []


def test_missed_targets_are_listed() -> None:
    result = on("A (avx512_vnni)")
    missed = missed_targets(result)
    assert len(missed) == sum(target.least > 2 for target in TARGETS)
    assert "1 JPEG file, 640×480 in FP32 (2.00×, target 3×)" in missed
    assert render(result)[-1].startswith("- A, avx512_vnni: targets missed: ")
    for entry in result["cases"]:
        entry["seconds"] = {name: [0.05 if name in ("fp32", "int8", "ours") else 1.0] * 8 for name in entry["seconds"]}
    assert missed_targets(result) == []
    result["starts"] = [{"import_seconds": 0.2, "load_seconds": 3.0}]
    assert missed_targets(result) == ["`load`, FP32 (3.00 s, target 2 s)"]


def test_rows_are_the_best_recipes_their_medians_and_worst_draws() -> None:
    rows = [line for line in peer_lines(int8_peers()) if line.startswith(("| vision", "| both"))]
    assert rows == [
        "| vision: other, recipe | 2 | 100 % | 0.9800 (0.9700) | 0.9000 (0.9000) "
        "| 97.0 (97.0) | 92.0 (92.0) | 85.0 (85.0) |",
        "| vision: **align-onnx** | 2 | 100 % | 0.9700 (0.9700) | 0.9000 (0.9000) "
        "| 97.0 (97.0) | 92.0 (92.0) | 85.0 (85.0) |",
        "| vision: **align-onnx for TensorRT** | 2 | 100 % | 0.9600 (0.9600) | 0.9000 (0.9000) "
        "| 97.0 (97.0) | 92.0 (92.0) | 85.0 (85.0) |",
        "| both: other, recipe; words | 2 |  |  |  | 98.0 (98.0) | 92.0 (92.0) | 80.5 (80.0) |",
        "| both: **align-onnx** | 2 |  |  |  | 97.5 (97.0) | 92.0 (92.0) | 85.0 (85.0) |",
    ]


def test_a_row_of_trained_weights_for_each_tool() -> None:
    lines = trained_lines(trained())
    own = lines.index("lite9, 200 calibration images and captions, 2 draws:")
    others = lines.index("lite10, 200 calibration images and captions, 2 draws:")
    assert [line for line in lines[own:others] if line.startswith("| text")] == [
        "| text: **align-onnx** | 97.0 % | 0.9850 (0.9800) | 0.9950 (0.9950) | 0.9600 (0.9600) | 0.9800 (0.9800) "
        "| 90.0 (90.0) % |",
        "| text: other, better | 100 % | 0.9700 (0.9700) | 0.9850 (0.9850) | 0.9100 (0.9100) | 0.9500 (0.9500) "
        "| 80.0 (80.0) % |",
        "| text: align-onnx, --int8-min-cosine 0.999 | 50.0 % | 0.9800 | 0.9990 | 0.9700 | 0.9800 | 100.0 % |",
        "| text: align-onnx, built-in samples | 96.0 % | 0.9100 | 0.9200 | 0.8100 | 0.8200 | 50.0 % |",
    ]
    assert not any("built-in" in line or "min-cosine" in line for line in lines[others:])


def test_goals_that_trained_weights_miss_are_named() -> None:
    """Of texts: cosines of 0.99 and 0.98, mean-centred 0.96."""
    (verdict, _) = [line for line in trained_lines(trained()) if line.startswith("Goals")]
    assert verdict.endswith(
        "missed by text of align-onnx in draw 0: smallest cosine 0.9900; text of align-onnx in draw 0: smallest, "
        "mean-centred 0.9600; text of align-onnx in draw 1: smallest cosine 0.9800; text of align-onnx in draw 1: "
        "smallest, mean-centred 0.9600."
    )
    result = trained()
    for draw in result["checkpoints"]["lite9"]["draws"].values():
        draw["graphs"][0].update(min_cosine=0.995, min_centred=0.98)
    assert {line.rpartition("): ")[2] for line in trained_lines(result) if line.startswith("Goals")} == {
        "reached by our graphs in every draw."
    }


def test_a_tool_that_was_not_run_on_all_draws_says_so() -> None:
    result = trained()
    del result["checkpoints"]["lite9"]["draws"]["1"]["graphs"][1:]
    rows = [line for line in trained_lines(result) if line.startswith("| text: other")]
    assert {row.split("|")[1].strip() for row in rows} == {"text: other, better (1 draw)"}


def test_failed_recipes_and_missing_tools_are_named_once() -> None:
    text = "\n".join(peer_lines(int8_peers()))
    assert text.count("vision: gone, recipe.") == 1
    assert text.count("lost (ERROR: not found)") == 1


@pytest.mark.parametrize(
    ("node", "operator", "group"),
    [
        (f"{BLOCK}.depthwise_conv.depthwise_conv/Conv", "QLinearConv", "QLinearConv, depthwise"),
        (f"{BLOCK}.projection.project_conv/Conv", "Conv", "Conv, 1×1 and stem"),
        (f"{BLOCK}.squeeze_excite.reduce/Conv", "QLinearConv", "squeeze-excite"),
        (f"{BLOCK}.squeeze_excite/Mul", "QLinearMul", "squeeze-excite"),
        (f"{BLOCK}.squeeze_excite/Mul_2", "QLinearMul", "QLinearMul"),
        (f"{BLOCK}.depthwise_conv/Sigmoid", "QLinearSigmoid", "QLinearSigmoid"),
    ],
)
def test_kernels_are_grouped_by_their_role(node: str, operator: str, group: str) -> None:
    assert group_of(f"{node}_kernel_time", operator) == group


def test_kinds_of_kernels_add_up() -> None:
    kernels = {
        "QLinearConv, depthwise": {"milliseconds": [1.0, 3.0, 2.0]},
        "QLinearMul": {"milliseconds": [5.0, 5.0, 5.0]},
        "QLinearSigmoid": {"milliseconds": [2.0, 2.0, 2.0]},
        "Cast": {"milliseconds": [0.25, 0.5, 0.25]},
    }
    kinds = by_kind(kernels)
    assert kinds["depthwise convolutions"] == 2
    assert kinds["SiLU, and multiplication by the squeeze-excite gate"] == 7
    assert kinds["everything else"] == 0.25
    assert sum(kinds.values()) == 9.25


def test_how_figures_are_written() -> None:
    assert [share(value) for value in (0, 0.0001, 0.5, 0.99999, 1)] == ["0 %", "0.1 %", "50.0 %", "99.9 %", "100 %"]
    assert cosine(0.999999) == "0.99999"
    assert [milliseconds(value) for value in (0.000123, 0.0123, 1.234)] == ["0.123", "12.3", "1234"]
    assert median_and_worst([0.3], 1) == "0.3"
    assert median_and_worst([0.1, 0.3, 0.2], 1, max) == "0.2 (0.3)"


def test_tables_escape_bars_and_refuse_uneven_rows() -> None:
    assert table(("a", "b"), [("x|y", "z")]) == ["| a | b |", "|---|---|", "| x\\|y | z |"]
    with pytest.raises(ValueError, match="cells"):
        table(("a", "b"), [("x",)])


def test_throughput_is_that_of_paired_rounds_and_memory_that_of_the_job() -> None:
    lines = throughput_lines(made_up()["embed"])
    assert lines[-2] == "| 1,000 texts | 100/s | 80/s | 0.80× | 9 MiB | 300 MiB |"


def test_two_actors_are_compared_with_one() -> None:
    lines = ray_lines(made_up()["ray"])
    assert "Two cores are 1.90 × one, two actors 1.70 × one. The largest difference of a value is 1.0e-08." in lines[0]
    assert "| Ray, two actors | 162 |" in lines


def test_the_page_of_bulk_embedding_has_the_measured_recall() -> None:
    rows = "\n".join(recall_rows(read_json(RESULTS / "dtypes.json")))
    assert rows in (ROOT / "docs" / "bulk.md").read_text(encoding="utf-8")
