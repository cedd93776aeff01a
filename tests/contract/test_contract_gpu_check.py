"""Contract: `make gpu-check` records every step, failed ones too, and reports failures at its end."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from benchmarks.gpu import check as gpu_check
from benchmarks.gpu.check import Outcome, Step, run_step, steps, write_result

ROOT = Path(__file__).parents[2]


def test_contract_steps_are_commands_of_the_project(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = {*project["scripts"], "python", "pytest", "align-bench"}
    found = steps(tmp_path, tmp_path / "checkpoint")
    assert {step.command[0] for step in found} <= known
    assert [step.name for step in found if "tensorrt" in step.name] == [
        "verify align-tiny on tensorrt", "verify full-size on tensorrt",
    ]  # fmt: skip


def test_contract_a_step_that_fails_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = run_step(Step("gone", ["no-such-command"]))
    assert (gone.exit_code, gone.result) == (127, None)
    assert "no-such-command" in gone.output
    failed = run_step(Step("failed", ["python", "-c", "import sys; print('half'); sys.exit('why')"]))
    assert (failed.exit_code, failed.output) == (1, "half\nwhy\n")
    done = run_step(Step("done", ["python", "-c", "print('{\"ok\": true}')"]))
    assert (done.exit_code, done.result) == (0, {"ok": True})
    file = write_result([gone, failed, done], tmp_path)
    told = json.loads(file.read_text())
    assert [step["exit_code"] for step in told["steps"]] == [127, 1, 0]
    assert {"machine", "gpu", "packages"} <= told.keys()


@pytest.mark.parametrize(("code", "ending"), [(0, "all steps passed"), (1, "failed: a step")])
def test_contract_the_exit_code_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int, ending: str
) -> None:
    monkeypatch.setattr(gpu_check, "full_size_checkpoint", lambda folder: folder)
    monkeypatch.setattr(gpu_check, "steps", lambda work, checkpoint: [Step("a step", ["python"])])
    monkeypatch.setattr(gpu_check, "run_step", lambda step: Outcome(step.name, code, 0.1))
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
    monkeypatch.setattr(gpu_check, "RESULTS", tmp_path)
    assert gpu_check.main() == code
    assert capsys.readouterr().out.strip().endswith(ending)
