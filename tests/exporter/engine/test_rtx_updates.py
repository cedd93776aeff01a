"""When engines are built again, on the command line and below it, with TensorRT for RTX."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from align_exporter.command import main
from align_exporter.engine.build import build_engines
from align_exporter.engine.request import EngineRequest
from align_exporter.engine.toolkits import open_toolkits
from align_runtime.bundle import Bundle
from align_runtime.engines import engines_of
from align_runtime.errors import BackendUnavailableError
from align_runtime.progress import Progress
from support.rtx import rtx_request

FP16 = rtx_request("fp16")


@pytest.fixture(scope="module")
def built(tiny_fp16_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """align-tiny with FP16 engines. Read only."""
    folder = Path(shutil.copytree(tiny_fp16_bundle, tmp_path_factory.mktemp("built") / "bundle"))
    assert reasons(folder, FP16) == ["no engine yet"] * 2
    return folder


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "bundle"))


def reasons(folder: Path, request: EngineRequest, progress: Progress | None = None) -> list[str | None]:
    """Builds engines and returns why."""
    toolkits = open_toolkits(request)
    outcomes = build_engines(folder, request, toolkits, False, progress or Progress(quiet=True))
    return [outcome.reason for outcome in outcomes]


def test_engines_are_kept_until_something_changes(copy: Path) -> None:
    assert reasons(copy, FP16) == [None, None]
    assert reasons(copy, replace(FP16, batches=(1, 2, 4))) == ["changed: profiles"] * 2
    ampere = replace(FP16, batches=(1, 2, 4), capabilities=("8.6",))
    assert reasons(copy, ampere) == ["changed: compute capability (8.6, 8.9, 12.0 → 8.6)"] * 2
    assert len(engines_of(Bundle.open(copy))) == 4  # those for other GPUs stay


def test_an_engine_of_another_graph_or_version_is_built_again(copy: Path) -> None:
    for tower, change in (("vision", {"source": {}}), ("text", {"machine": {"tensorrt": "1.5.0.1"}})):
        sidecar = next((copy / "engines").glob(f"{tower}_fp16*.json"))
        values = json.loads(sidecar.read_text())
        for key, value in change.items():
            values[key] = {**values[key], **value} if value else dict.fromkeys(values[key], "0" * 64)
        sidecar.write_text(json.dumps(values))
    now = open_toolkits(FP16)[0].machine.tensorrt
    assert reasons(copy, FP16) == ["changed: graph", f"changed: TensorRT for RTX (1.5.0.1 → {now})"]


def test_a_damaged_plan_is_built_again(copy: Path) -> None:
    plan = next((copy / "engines").glob("text_fp16*.plan"))
    plan.write_bytes(plan.read_bytes()[::-1])
    (vision, text) = reasons(copy, FP16)
    assert vision is None
    assert text is not None
    assert plan.name in text


def test_the_terminal_shows_phase_and_seconds(tiny_fp16_bundle: Path, tmp_path: Path) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    folder = Path(shutil.copytree(tiny_fp16_bundle, tmp_path / "bundle"))
    reasons(folder, FP16, Progress(stream=terminal))
    steps = re.findall(r"… vision_model_fp16.onnx: ([\w ]+) (\d+)/(\d+) \(\d+ s\)", terminal.getvalue())
    assert ("Building engine", "1", steps[0][2]) in steps  # the library calls phase_start and step_complete
    assert len({phase for phase, *_ in steps}) > 3


def test_the_command_builds_engines_and_then_finds_them(
    tiny_checkpoint: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(built, tmp_path / "bundle", ignore=shutil.ignore_patterns("engines")))
    command = [str(tiny_checkpoint), "-o", str(folder), "--fp16", "--engine", "--engine-runtime", "rtx"]
    command += ["--engine-variants", "fp16"]
    assert main([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["built"] is False  # the graphs are up to date
    assert [(engine["tower"], engine["built"], engine["reason"]) for engine in result["engines"]] == [
        ("vision", True, "no engine yet"), ("text", True, "no engine yet"),
    ]  # fmt: skip
    assert [engine["machine"]["compute_capabilities"] for engine in result["engines"]] == [["8.6", "8.9", "12.0"]] * 2
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert printed.count("up to date") == 3  # the bundle and both engines
    assert printed.count("not measured") == 2
    assert main([*command, "--engine-profile", "seq=8:16:16"]) == 2
    assert "end it with seq=…:32" in capsys.readouterr().err


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'align-onnx\[rtx\]'"):
        open_toolkits(FP16)
