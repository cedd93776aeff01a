"""Recipes of a tool: samples one by one, errors and time limits in the record, and those of onnxruntime on a graph."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from benchmarks.int8_share import int8_share
from benchmarks.peers import environments

WORKER = """
import time
from worker import run_recipes

def count(job):
    feeds = job.feeds()
    (job.folder / "out").write_text(str([feed["input_ids"].shape for feed in feeds]))
    return job.folder / "out"

def fail(job):
    raise ValueError("first line\\nlast line")

def never(job):
    while True:
        pass

def deaf(job):
    while True:
        try:
            never(job)
        except BaseException:
            pass

def skipped(job):
    raise AssertionError("slow recipes must not run")

recipes = {"count": count, "fail": fail, "never": never, "deaf": deaf, "skipped": skipped}
run_recipes({"text": recipes}, ["numpy"], slow=["skipped"])
"""


def run(script: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    job = {"tower": "text", "samples": str(folder / "samples.npz"), "graph": "", "folder": str(folder)}
    (folder / "job.json").write_text(json.dumps(job | {"limit": 30, "slow": False} | changes))
    subprocess.run(
        [sys.executable, str(script), str(folder / "job.json")],
        env={"PYTHONPATH": str(environments.SCRIPTS), "PATH": ""},
        check=True,
        capture_output=True,
    )
    return json.loads((folder / "result.json").read_text())["recipes"]


def test_recipes_that_end_fail_or_never_end(tmp_path: Path) -> None:
    mask = np.array([[1, 1, 0], [1, 1, 1]])
    np.savez(tmp_path / "samples.npz", input_ids=mask, attention_mask=mask)
    script = tmp_path / "script.py"
    script.write_text(WORKER)
    recipes = run(script, tmp_path, limit=0.5)
    assert recipes.keys() == {"count", "fail", "never", "deaf"}
    assert recipes["count"]["file"] == "out"
    assert (tmp_path / "out").read_text() == "[(1, 2), (1, 3)]"  # without padding
    assert recipes["fail"] == {"error": "ValueError: last line"}
    assert recipes["never"] == recipes["deaf"] == {"error": "not finished after 0.5 s of CPU time"}


def test_onnxruntime_quantizes_a_graph(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    weights = {"w": generator.normal(size=(4, 3, 3, 3)), "b": generator.normal(size=4)}
    nodes = [
        make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT),
        make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        make_node("Conv", ["t", "w", "b"], ["y"]),
    ]
    ends = [
        make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 8, 8, 3]),
        make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4, 6, 6]),
    ]
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    model = make_model(
        make_graph(nodes, "test", ends[:1], ends[1:], constants), opset_imports=[make_opsetid("", 20)], ir_version=10
    )
    onnx.save(model, tmp_path / "graph.onnx")
    pixels = generator.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "samples.npz", pixels=pixels)
    script = environments.SCRIPTS / "quantize_with_onnxruntime.py"
    recipes = run(script, tmp_path, tower="vision", graph=str(tmp_path / "graph.onnx"))
    assert len(recipes) == 5
    for recipe, record in recipes.items():
        assert int8_share(tmp_path / record["file"], {"pixels": pixels[:1]}) == 1, recipe


def test_an_environment_that_cannot_be_created_gives_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fake(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        return subprocess.CompletedProcess(
            command, int("pip" in command), stderr="collecting\nERROR: no such version\n"
        )

    monkeypatch.setattr(subprocess, "run", fake)
    with pytest.raises(environments.MissingPeerError, match="no such version"):
        environments.interpreter("nncf", tmp_path)
    assert calls[1][-1] == str(environments.SCRIPTS / "nncf.txt")
    assert environments.interpreter(environments.OWN, tmp_path) == Path(sys.executable)
    assert len(calls) == 2  # nothing is installed for onnxruntime


def test_every_tool_has_a_script_and_pinned_packages() -> None:
    assert {file.stem for file in environments.SCRIPTS.glob("*.txt")} == {*environments.PEERS} - {environments.OWN}
    for peer in environments.PEERS:
        assert (environments.SCRIPTS / f"quantize_with_{peer}.py").exists()
    for file in environments.SCRIPTS.glob("*.txt"):
        lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
        assert all("==" in line for line in lines), file
