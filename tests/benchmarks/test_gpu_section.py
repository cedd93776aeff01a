"""The page claims nothing for a GPU unless a result file of one is there."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.figures import Results, page
from benchmarks.result_files import RESULTS
from benchmarks.sections.gpu import NOTHING
from support.benchmark_results import gpu_check, made_up


def results(folder: Path) -> Results:
    for name, values in made_up().items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    return Results(folder, folder / "evaluation.json")


def test_without_a_result_nothing_is_claimed(tmp_path: Path) -> None:
    (tmp_path / "dry-run.json").write_text(json.dumps(gpu_check()))
    text = page(results(tmp_path))
    assert NOTHING in text
    assert "GPU check" not in text
    assert (NOTHING in page(Results())) == (not list(RESULTS.glob("gpu-*.json")))


def test_a_result_names_its_card(tmp_path: Path) -> None:
    (tmp_path / "gpu-made-up-gpu.json").write_text(json.dumps(gpu_check()))
    text = page(results(tmp_path))
    assert NOTHING not in text
    assert "## GPU check on Made-up GPU" in text
    assert "| vision | 32 | cuda fp16 | 10.0 | 10.0 | 4.00× |" in text
    assert "| full-size on cuda | vision | fp16 | 4.0e-03 | 0.9996000 |" in text
    assert "| 32 | `prefer_nhwc=0` | 8.0 | 25.0 |" in text
    failed = "options (ran past its limit), rtx (exit code 1), speed against autotuning (no time left)"
    assert f"Steps that did not pass: {failed}." in text
    assert "(../benchmarks/results/gpu-made-up-gpu.json)" in text
