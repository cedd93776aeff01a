"""Contract: every name, argument and result of TensorRT and CUDA that our code uses is in their real bindings.

mypy checks our code against type stubs made from the bindings' surfaces (see `make_surfaces.py`). Mutants, each with
one name changed or one argument dropped, prove that it detects mistakes; one run of mypy checks all of them.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.make_surfaces import SURFACES, WHEELS, introspect
from support.mutants import mutants
from support.stubs import write_stub
from support.surfaces import read_surface

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "runtime/align_runtime/backends/tensorrt"
EXPORTER = ROOT / "exporter/align_exporter/engine"
RTX = "tensorrt_rtx-1"
SOURCES = ("reference", "calibration", "exporter", "runtime")
# Mutants that mypy accepts: attributes of numpy and of our own objects that have a name of TensorRT or CUDA, and
# optional arguments, whose absence the doubles detect (test_contract_doubles.py).
OURS = {
    "cuda_runtime.py: size renamed", "cuda_runtime.py: dtype renamed", "cuda_runtime.py: handle renamed",
    "engine.py: dtype renamed", "runner.py: shape renamed", "rtx.py: __init__ without an argument",
    "engine.py: dtype without an argument", "lane.py: shape renamed", "builder.py: pop without an argument",
}  # fmt: skip
OPTIONAL = {
    "builder.py: create_network without an argument", "engine.py: create_execution_context without an argument",
    "rtx.py: set_execution_context_allocation_strategy without an argument",
    "rtx.py: set_runtime_cache without an argument",
}  # fmt: skip
# Names of the module, which is chosen when it runs: TensorRT's doubles and the real TensorRT for RTX look them up.
CHOSEN = {
    *(f"builder.py: {name} renamed" for name in ("Builder", "BuilderFlag", "DETAILED", "IProgressMonitor", "OnnxParser",
                                                 "ProfilingVerbosity", "TF32", "__init__")),
    *(f"engine.py: {name} renamed" for name in ("ExecutionContextAllocationStrategy", "INPUT", "Runtime",
                                                "TensorIOMode", "USER_MANAGED", "__version__", "nptype")),
    "engine.py: Runtime without an argument", "engine.py: nptype without an argument",
    "rtx.py: create_runtime_config renamed", "toolkits.py: num_compute_capabilities renamed",
    "toolkits.py: set_compute_capability renamed", "toolkits.py: set_compute_capability without an argument",
    *(f"builder.py: {name} without an argument" for name in ("Builder", "OnnxParser", "__init__")),
    *(f"log.py: {name} renamed" for name in ("ERROR", "ILogger", "INTERNAL_ERROR", "WARNING", "__init__")),
    "log.py: __init__ without an argument",
}  # fmt: skip
CONFIG = """
[mypy]
python_version = 3.11
strict = True
warn_return_any = False
explicit_package_bases = True
follow_imports = silent
# The module is chosen when it runs, TensorRT or TensorRT for RTX: what derives from its classes is not checked here.
disallow_subclassing_any = False
[mypy-numpy.*,torch.*,onnx.*,onnx_ir.*,PIL.*,tokenizers.*,align_reference.*,align_calibration.*]
follow_imports = skip
follow_imports_for_stubs = True
ignore_missing_imports = True
disallow_any_unimported = False
"""
TypeCheck = Callable[..., str]


def gpu_modules(folder: Path) -> list[Path]:
    """The files in `folder` that use TensorRT or CUDA."""
    return sorted(file for file in folder.glob("*.py") if "libraries" in file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def type_check(tmp_path_factory: pytest.TempPathFactory) -> TypeCheck:
    """Runs mypy on files against the surface of one TensorRT version, and returns its output."""
    work = tmp_path_factory.mktemp("contract")
    (work / "mypy.ini").write_text(CONFIG)
    for name in WHEELS:
        if name.startswith("tensorrt") and name != RTX:
            write_stub(read_surface(name), work / name / "tensorrt")
            bindings = work / name / "cuda" / "bindings"
            write_stub(read_surface("cudart-13"), bindings / "runtime")
            write_stub(read_surface(RTX), work / name / "tensorrt_rtx")
            for package in (bindings, bindings.parent):
                (package / "__init__.pyi").touch()

    def check(surface: str, files: list[Path], *paths: Path) -> str:
        path = os.pathsep.join(str(folder) for folder in [work / surface, *paths, *(ROOT / name for name in SOURCES)])
        command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", str(work / "cache")]
        done = subprocess.run(
            [*command, "--no-pretty", *map(str, files)],
            cwd=work,
            env={**os.environ, "MYPYPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, 1), done.stdout + done.stderr
        return done.stdout

    return check


@pytest.mark.parametrize("surface", ["tensorrt-11", "tensorrt-10"])
def test_contract_of_runtime_and_builder(type_check: TypeCheck, surface: str) -> None:
    files = gpu_modules(RUNTIME) + gpu_modules(EXPORTER)
    assert {"engine.py", "lane.py", "cuda_runtime.py", "builder.py", "layers.py"} <= {file.name for file in files}
    output = type_check(surface, files)
    assert output.startswith("Success"), output


@pytest.mark.parametrize("surface", ["tensorrt_lean-11", "tensorrt_lean-10"])
def test_contract_of_the_runtime_with_the_lean_runtime(type_check: TypeCheck, surface: str) -> None:
    output = type_check(surface, gpu_modules(RUNTIME))
    assert output.startswith("Success"), output


def test_contract_check_detects_every_name_and_argument(type_check: TypeCheck, tmp_path: Path) -> None:
    names = frozenset().union(*(read_surface(name).names for name in ("tensorrt-11", RTX, "cudart-13")))
    planted = {}
    for file in gpu_modules(RUNTIME) + gpu_modules(EXPORTER):
        if file.name == "libraries.py":
            continue
        for mutant in mutants(file.read_text(encoding="utf-8"), names):
            module = tmp_path / f"mutant_{len(planted):03}.py"
            module.write_text(mutant.source, encoding="utf-8")
            planted[module.stem] = f"{file.name}: {mutant.title}"
    assert len(planted) > 100
    output = type_check("tensorrt-11", sorted(tmp_path.glob("*.py")), tmp_path)
    detected = set(re.findall(r"^.*(mutant_\d+)\.py:\d+: error", output, re.MULTILINE))
    assert {planted[name] for name in planted.keys() - detected} == OURS | OPTIONAL | CHOSEN


def test_contract_names_that_tensorrt_11_removed_are_not_used() -> None:
    """Searched by name, so that no condition around a call hides it."""
    removed = read_surface("tensorrt-10").names - read_surface("tensorrt-11").names
    assert {"FP16", "EXPLICIT_BATCH", "device_memory_size", "platform_has_fast_fp16"} <= removed
    for file in gpu_modules(RUNTIME) + gpu_modules(EXPORTER):
        used = {node.attr for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)}
        assert used & removed == set(), file.name


@pytest.mark.skipif("ALIGN_BINDINGS" not in os.environ, reason="set ALIGN_BINDINGS to a folder with the wheels")
def test_contract_surfaces_are_those_of_the_wheels(tmp_path: Path) -> None:
    for name in WHEELS:
        work = tmp_path / name
        work.mkdir()
        found = introspect(Path(os.environ["ALIGN_BINDINGS"]), name, work)
        assert found == json.loads((SURFACES / f"{name}.json").read_text())
