"""The arrows between the rooms, read from the sources, and the runtime's independence of everything heavy."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import align_runtime
from support.imports import imported_modules

ROOT = Path(__file__).parents[2]

# What each room may import of the other rooms and of the heavy packages. DESIGN.md: the runtime imports nothing.
ALLOWED = {
    "runtime/align_runtime": set(),
    "runtime/align_bench": {"align_runtime"},
    "runtime/align_serving": {"align_runtime"},
    "calibration/align_calibration": {"align_runtime", "onnx_ir"},
    "reference/align_reference": {"align_runtime", "torch"},
    "exporter/align_exporter": {
        "align_runtime", "align_bench", "align_reference", "align_calibration", "torch", "onnx", "onnx_ir",
    },
}  # fmt: skip
WATCHED = {
    "align_runtime", "align_bench", "align_serving", "align_calibration", "align_reference", "align_exporter",
    "torch", "onnx", "onnx_ir", "onnxscript", "transformers", "sklearn", "tensorrt", "cuda",
}  # fmt: skip
# The one module that imports these, for the type checker; running, it imports them when they are first used.
GPU_LIBRARIES = {"runtime/align_runtime/backends/tensorrt/libraries.py": {"tensorrt", "cuda"}}
# The reference takes only these leaves of the runtime.
REFERENCE_LEAVES = {
    "align_runtime.errors", "align_runtime.foreign_text", "align_runtime.hub", "align_runtime.json_files",
    "align_runtime.regular_files", "align_runtime.user_path",
}  # fmt: skip


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_its_arrows_allow(room: str) -> None:
    package = room.rpartition("/")[2]
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for file in files:
        for module in imported_modules(file.read_text(encoding="utf-8")):
            top = module.partition(".")[0]
            if top in WATCHED and top != package:
                name = file.relative_to(ROOT).as_posix()
                assert top in ALLOWED[room] | GPU_LIBRARIES.get(name, set()), f"{name} imports {module}"


def test_the_reference_takes_only_leaves_of_the_runtime() -> None:
    for file in (ROOT / "reference/align_reference").rglob("*.py"):
        taken = {
            name for name in imported_modules(file.read_text(encoding="utf-8")) if name.startswith("align_runtime")
        }
        assert taken <= REFERENCE_LEAVES, f"{file.name} imports {taken - REFERENCE_LEAVES}"


def test_the_watch_sees_imports() -> None:
    source = "import torch.nn\nfrom onnx import helper\ndef f():\n    from transformers import AlignModel\n"
    assert imported_modules(source) == {"torch.nn", "onnx", "transformers"}


def test_every_runtime_module_imports_where_the_build_side_cannot() -> None:
    names = [module.name for module in pkgutil.walk_packages(align_runtime.__path__, "align_runtime.")]
    assert "align_runtime.backends.onnxruntime" in names
    program = """
import importlib, sys

class Unimportable:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in {BLOCKED}:
            raise ImportError(f"{name} must not be imported by the runtime")

sys.meta_path.insert(0, Unimportable())
for name in {NAMES}:
    importlib.import_module(name)
assert not {BLOCKED} & {name.partition(".")[0] for name in sys.modules}
"""
    blocked = WATCHED - {"align_runtime"} | {"onnxruntime"}  # the backend too is only imported when it is asked for
    code = program.replace("{NAMES}", repr(names)).replace("{BLOCKED}", repr(blocked))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT / "runtime"), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
