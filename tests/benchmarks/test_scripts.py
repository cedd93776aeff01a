"""Measurements take minutes or hours and no test runs them: every module can be imported, and its help is printed."""

from __future__ import annotations

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
WITH_OPTIONS = [
    name for name in MODULES if "ArgumentParser" in (ROOT / name.replace(".", "/")).with_suffix(".py").read_text()
]


def test_modules_are_found() -> None:
    assert {"benchmarks.figures", "benchmarks.measure_bench", "benchmarks.gpu.check"} <= set(MODULES)
    assert {"benchmarks.measure_bench", "benchmarks.gpu.measure"} <= set(WITH_OPTIONS)


@pytest.mark.parametrize("module", MODULES)
def test_module_can_be_imported(module: str) -> None:
    import_module(module)


@pytest.mark.parametrize("module", WITH_OPTIONS)
def test_help_needs_no_measurement(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = import_module(module)
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 0
    assert f"python -m {module}" in capsys.readouterr().out


def test_the_makefile_runs_every_measurement() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for file in FOLDER.glob("measure_*.py"):
        assert f"$(MEASURE){file.stem.removeprefix('measure_')}" in makefile, file.name
