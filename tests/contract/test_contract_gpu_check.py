"""Contract: the GPU check records every step, failed and endless ones too, and writes what it knows after each."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import check as gpu_check
from benchmarks.gpu.check import ENDED, LEFT_OUT, Outcome, result_file, run_step, without_paths, write_result
from benchmarks.gpu.steps import Step, Target, steps


def test_contract_steps_have_limits_and_names_of_their_own(tmp_path: Path) -> None:
    for target in (Target(), Target(("cuda", "tensorrt"), engines=True), Target(("cpu",), is_dry=True)):
        found = steps(tmp_path, target)
        assert len({step.name for step in found}) == len(found)
        outputs = [step.output for step in found if step.output is not None]
        assert len(set(outputs)) == len(outputs)
        assert all(10 < step.limit <= 240 for step in found)
        assert any("--engine" in step.command for step in found) == target.engines
    assert [step.name for step in steps(tmp_path, Target(("cuda", "tensorrt"))) if "tensorrt" in step.name] == [
        "verify align-tiny on tensorrt", "verify full-size on tensorrt", "verify full-size in INT8 on tensorrt",
    ]  # fmt: skip


def test_contract_bundles_that_were_brought_along_are_not_exported(tmp_path: Path) -> None:
    names = {step.name for step in steps(tmp_path, Target())}
    for bundle in ("align-tiny", "full-size"):
        (tmp_path / bundle).mkdir()
        (tmp_path / bundle / "align.json").touch()
    assert names - {step.name for step in steps(tmp_path, Target())} == {"export align-tiny", "export full-size"}
    assert names <= {step.name for step in steps(tmp_path, Target(engines=True))}  # they have no engines


def test_contract_a_step_that_fails_is_recorded(tmp_path: Path) -> None:
    failed = run_step(Step("failed", ["-c", "import sys; print('half'); sys.exit('why')"], 60), 600)
    assert (failed.exit_code, failed.output) == (1, "half\nwhy\n")
    done = run_step(Step("done", ["-c", "print('{\"ok\": true}')"], 60), 600)
    assert (done.exit_code, done.result) == (0, {"ok": True})
    assert run_step(Step("late", ["-c", "raise SystemExit(9)"], 60), 3).exit_code == LEFT_OUT
    file = tmp_path / "gpu-none.json"
    write_result(file, {}, [failed, done])
    told = json.loads(file.read_text())
    assert [step["exit_code"] for step in told["steps"]] == [1, 0]
    assert {"machine", "gpu", "packages"} <= told.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["gpu-none.json"]


def test_contract_a_step_that_hangs_is_ended_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had written is kept."""
    monkeypatch.setattr(gpu_check, "LEAST", 0)
    output, started = tmp_path / "part.json", tmp_path / "started"
    child = f"import time, pathlib; time.sleep(8); pathlib.Path({str(started)!r}).touch()"
    script = (
        f"import pathlib, subprocess, sys; pathlib.Path({str(output)!r}).write_text('[1]'); "
        f"subprocess.run([sys.executable, '-c', {child!r}])"
    )
    ended = run_step(Step("hangs", ["-c", script], 4, output), 600)
    assert (ended.exit_code, ended.result) == (ENDED, [1])
    assert ended.seconds < 8
    assert not started.exists()


def test_contract_a_dry_run_has_another_name(tmp_path: Path) -> None:
    facts = {"name": "NVIDIA H100 80GB HBM3"}
    assert result_file(facts, False, tmp_path).name == "gpu-nvidia-h100-80gb-hbm3.json"
    assert result_file({}, True, tmp_path).name == "dry-run.json"


@pytest.mark.parametrize(("code", "ending"), [(0, "all steps passed"), (1, "not passed: a step")])
def test_contract_the_exit_code_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int, ending: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["check", "--dry-run", "--results", str(tmp_path)])
    monkeypatch.setattr(gpu_check, "steps", lambda work, target: [Step("a step", [], 10)])
    monkeypatch.setattr(gpu_check, "run_step", lambda step, left: Outcome(step.name, code, 0.1, step.limit))
    assert gpu_check.main() == code
    assert capsys.readouterr().out.strip().endswith(ending)
    assert (tmp_path / "dry-run.json").is_file()


def test_contract_without_a_gpu_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["check", "--results", str(tmp_path)])
    monkeypatch.setattr(gpu_check, "gpu_facts", dict)
    assert gpu_check.main() == 2
    assert "nvidia-smi finds no GPU" in capsys.readouterr().err


def test_contract_results_name_no_folder_of_the_machine() -> None:
    work = Path("/home/user/work")
    found = Outcome("a step", 1, 0.1, 60, {"bundle": f"{work}/align-tiny"}, f"File {work}/a.py, /usr/lib/b.py")
    told = without_paths(found, work)
    assert (told.result, told.output) == ({"bundle": "align-tiny"}, "File a.py, /usr/lib/b.py")


def test_contract_single_steps_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What they made is still there, and the results of the others are kept."""
    work, ran = tmp_path / "work", list[str]()

    def run(step: Step, left: float) -> Outcome:
        ran.append(step.name)
        (work / step.name).touch()
        return Outcome(step.name, len(ran) - 1, 0.1, step.limit)

    monkeypatch.setattr(gpu_check, "steps", lambda work, target: [Step(name, [], 10) for name in ("first", "second")])
    monkeypatch.setattr(gpu_check, "run_step", run)
    command = ["check", "--dry-run", "--results", str(tmp_path), "--work", str(work)]
    monkeypatch.setattr(sys, "argv", command)
    assert gpu_check.main() == 1
    monkeypatch.setattr(sys, "argv", [*command, "--only", "first"])
    assert gpu_check.main() == 1
    assert ran == ["first", "second", "first"]
    assert sorted(path.name for path in work.iterdir()) == ["first", "second"]
    told = json.loads((tmp_path / "dry-run.json").read_text())["steps"]
    assert [(step["name"], step["exit_code"]) for step in told] == [("first", 2), ("second", 1)]
    monkeypatch.setattr(sys, "argv", [*command, "--only", "third"])
    with pytest.raises(SystemExit):
        gpu_check.main()
    assert "expected one of first, second; got third" in capsys.readouterr().err
