"""Measurements take minutes or hours and no test runs them: every module can be imported, and its help is printed."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks"
OF_OTHER_ENVIRONMENTS = "quantize_with_"  # these scripts import the tools that they run
MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in FOLDER.rglob("*.py")
    if not file.stem.startswith(OF_OTHER_ENVIRONMENTS)
)


def test_modules_are_found() -> None:
    assert {"benchmarks.figures", "benchmarks.measure_bench", "benchmarks.gpu.check"} <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_module_can_be_imported(module: str) -> None:
    import_module(module)


def test_a_measurement_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.measure_vision", "--help"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": "tests"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--rounds" in done.stdout


def test_the_makefile_runs_every_measurement() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for file in FOLDER.glob("measure_*.py"):
        assert f"$(MEASURE){file.stem.removeprefix('measure_')}" in makefile, file.name
