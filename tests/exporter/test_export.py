"""align-export as a user calls it: the bundle, determinism, atomicity, and its errors."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch

from align_exporter.command import main
from align_runtime.errors import BuildError
from align_runtime.manifest import REPORT_NAMES
from align_runtime.preprocessing import ImagePreprocessing
from support.digests import digests
from support.redirected import ROOMS


def export(*arguments: Any) -> int:
    return main([*map(str, arguments), "--quiet"])


# ── options ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Run:
    """An export in a process of its own: where its bundle is and what it printed."""

    bundle: Path
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def runs(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """Two exports of the same checkpoint, the first with ``--json``: hash seeds and addresses differ."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(ROOMS)}
    done = []
    for options in (["--json"], []):
        bundle = tmp_path_factory.mktemp("runs") / "bundle"
        command = [sys.executable, "-m", "align_exporter", str(small_checkpoint), "-o", str(bundle), *options]
        result = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        done.append(Run(bundle, result.stdout, result.stderr))
    return done[0], done[1]


def test_json_is_alone_on_stdout(runs: tuple[Run, Run]) -> None:
    run, _ = runs
    result = json.loads(run.stdout)
    assert run.stderr == ""
    assert result["bundle"] == str(run.bundle)
    for entry in result["graphs"]:
        file = run.bundle / entry["file"]
        assert entry["bytes"] >= file.stat().st_size
        assert entry["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert entry["parity"]["max_abs"] <= entry["limits"]["max_abs"]


def test_progress_names_the_phases_and_the_table_the_result(runs: tuple[Run, Run]) -> None:
    _, run = runs
    for phase in (
        "read small",
        "vision fp32: trace",
        "text fp32: parity with the reference",
        "text fp32_cpu: trace",
        "bundle and self-test",
    ):
        assert f"✓ {phase} (" in run.stderr
    assert all(line.startswith("  ✓ ") for line in run.stderr.splitlines())  # nothing of torch's own messages
    assert "max abs error" in run.stdout


def test_two_runs_give_the_same_bytes(runs: tuple[Run, Run]) -> None:
    """All files but the report, which describes one build and its times."""
    first, second = (digests(run.bundle) for run in runs)
    assert len(first) > 10
    differ = {name for name in first | second if first.get(name) != second.get(name)}
    assert differ == set(REPORT_NAMES)


def test_the_traces_that_tests_keep_give_the_same_bytes(
    runs: tuple[Run, Run], small_checkpoint: Path, tmp_path: Path
) -> None:
    """Exports in this process use `support.trace_cache`, those of `runs` do not."""
    assert export(small_checkpoint, "-o", tmp_path / "bundle") == 0
    assert digests(tmp_path / "bundle" / "onnx") == digests(runs[0].bundle / "onnx")


# ── gates ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def break_normalization(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ImagePreprocessing.scale_and_offset
    monkeypatch.setattr(
        ImagePreprocessing, "scale_and_offset", lambda self: (right(self)[0], right(self)[1] + 1 / 127.5)
    )


def test_a_failed_gate_exits_with_one_and_writes_no_bundle(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    break_normalization(monkeypatch)
    assert export(small_checkpoint, "-o", tmp_path / "bundle") == 1
    assert "onnx/vision_model.onnx: max_abs is" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_failed_gate_leaves_the_previous_bundle(
    small_checkpoint: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    break_normalization(monkeypatch)
    assert export(small_checkpoint, "-o", target) == 1
    assert digests(target) == digests(tiny_bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


# ── wrong calls and bad checkpoints ──────────────────────────────────────────────────────────────────────────────────


def copied(checkpoint: Path, target: Path) -> Path:
    return Path(shutil.copytree(checkpoint, target))


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def fails(capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: Any) -> str:
    """The error for `arguments`: one line, exit code 2, no bundle."""
    assert export(*arguments, "-o", tmp_path / "bundle") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("align-export: error: ")
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "bundle").exists()
    return printed.err


def test_missing_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "neither an existing folder nor a hub id" in fails(capsys, tmp_path, tmp_path / "nowhere")


def test_bad_files(small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refusal(name: str) -> str:
        return fails(capsys, tmp_path, checkpoint)

    checkpoint = copied(small_checkpoint, tmp_path / "checkpoint")
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "model.safetensors" in refusal("truncated")
    shutil.copy(small_checkpoint / "model.safetensors", weights)
    (checkpoint / "config.json").write_text("{]")
    assert "config.json is not valid JSON" in refusal("no JSON")
    shutil.copy(small_checkpoint / "config.json", checkpoint)
    edit(checkpoint / "config.json", model_type="clip")
    assert "model_type is 'clip'" in refusal("type")
    shutil.copy(small_checkpoint / "config.json", checkpoint)
    vision = json.loads((checkpoint / "config.json").read_text())["vision_config"] | {"hidden_act": "snake"}
    edit(checkpoint / "config.json", vision_config=vision)
    assert "hidden_act is 'snake'; known:" in refusal("activation")
    shutil.copy(small_checkpoint / "config.json", checkpoint)
    edit(checkpoint / "preprocessor_config.json", do_solarize=True)
    assert "do_solarize" in refusal("preprocessing")
    shutil.copy(small_checkpoint / "preprocessor_config.json", checkpoint)
    text = json.loads((checkpoint / "config.json").read_text())["text_config"]
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
    extra = f"word{text['vocab_size']}"
    tokenizer["model"]["vocab"][extra] = max(tokenizer["model"]["vocab"].values()) + 1
    (checkpoint / "tokenizer.json").write_text(json.dumps(tokenizer))
    with (checkpoint / "vocab.txt").open("a") as vocabulary:
        vocabulary.write(f"{extra}\n")
    assert str(text["vocab_size"]) in refusal("vocabulary")


def test_untrained_weights_are_refused(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    checkpoint = copied(small_checkpoint, tmp_path / "checkpoint")
    weights = load_file(checkpoint / "model.safetensors")
    for name, tensor in weights.items():
        if "project_conv" in name:
            weights[name] = torch.full_like(tensor, 1e-6)
    save_file(weights, checkpoint / "model.safetensors")
    assert export(checkpoint, "-o", tmp_path / "bundle") == 1
    assert "the weights are unusable" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_an_output_that_is_not_a_bundle(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "photos"
    target.mkdir()
    (target / "cat.jpg").write_text("precious")
    start = time.monotonic()
    assert export(small_checkpoint, "-o", target) == 2
    assert time.monotonic() - start < 5  # an error before the work, not after
    assert "exists and is not a bundle" in capsys.readouterr().err
    assert [path.name for path in target.iterdir()] == ["cat.jpg"]


def test_an_output_that_cannot_be_written(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert export(small_checkpoint, "-o", tmp_path / "file" / "bundle") == 2
    printed = capsys.readouterr().err
    assert printed.startswith("align-export: error: ")
    assert str(tmp_path / "file") in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--opset", "25"], ["--pixel-input", "float64"], ["--fp4"]])
def test_unknown_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", "-o", "bundle", *arguments]) == 2


def test_the_traced_and_final_graphs_can_be_dumped(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The traced graph is there even if a later pass fails, which is what one looks at it for."""
    monkeypatch.setattr("align_exporter.pipeline.run_steps", stop)
    assert export(small_checkpoint, "-o", tmp_path / "bundle", "--dump-graph", "traced", tmp_path / "graph.onnx") == 1
    (dumped,) = tmp_path.iterdir()
    assert dumped.name == "graph.vision_model.onnx"
    model = onnx.load(dumped)
    assert "ReduceMean" in {node.op_type for node in model.graph.node}  # which the passes replace
    assert "stopped" in capsys.readouterr().err


def stop(*_: Any) -> None:
    raise BuildError("stopped")


def test_a_rebuild_says_why_and_which_variants_will_be_gone(
    tiny_checkpoint: Path, tiny_fp16_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = Path(shutil.copytree(tiny_fp16_bundle, tmp_path / "bundle"))
    assert main([str(tiny_checkpoint), "-o", str(target)]) == 0
    printed = capsys.readouterr().err
    changed = re.search(r"again: changed options: (.*)", printed)
    assert changed is not None, printed
    assert "precisions" in changed[1]
    assert "the new bundle will not have fp16" in printed


def test_a_home_folder_in_the_output(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shell expands ``-o ~/bundle``, and leaves ``--output=~/bundle`` as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "cat.jpg").touch()
    assert export(small_checkpoint, "--output=~/bundle") == 2
    assert f"{tmp_path}/bundle exists and is not a bundle" in capsys.readouterr().err


def test_a_disk_without_space_is_told_before_the_work(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("align_exporter.pipeline._traced", stop)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    assert export(small_checkpoint, "-o", tmp_path / "bundle") == 2
    assert "has 0 MB free; the bundle takes at least " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
