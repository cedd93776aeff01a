"""``align-triton``: its options, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from align_serving.triton.command import main
from align_serving.triton.graph_models import NEEDS_VNNI


def test_prints_what_it_wrote(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tiny_bundle), str(tmp_path / "repository"), "--backend", "onnxruntime", "--name", "v2.shop"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path / 'repository'}: models of align-tiny"
    assert [line.split() for line in lines[3:]] == [
        ["v2.shop_text_tower", "1", "onnxruntime", "text", "fp32_cpu", "cpu"],
        ["v2.shop_vision_tower", "1", "onnxruntime", "vision", "fp32", "cpu"],
    ]


@pytest.mark.parametrize(("backend", "precision", "warns"), [
    ("onnxruntime", "int8", True), ("onnxruntime", "fp32", False), ("python", "int8", False)
])  # fmt: skip
def test_int8_in_triton_s_own_backend_needs_vnni(
    tiny_int8_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    backend: str,
    precision: str,
    warns: bool,
) -> None:
    call = [str(tiny_int8_bundle), str(tmp_path / "repository"), "--backend", backend, "--precision", precision]
    assert main(call) == 0
    assert capsys.readouterr().out.splitlines()[5:] == ([f"NOTE {NEEDS_VNNI}"] if warns else [])
    assert main([*call, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == ([NEEDS_VNNI] if warns else [])
    configs = [path.read_text() for path in (tmp_path / "repository").glob("*/config.pbtxt")]
    assert [NEEDS_VNNI in config.splitlines()[0] for config in configs] == [warns, warns]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "../x"], "name is '../x'; expected letters"),
        (["--precision", "int8"], "precision 'int8' is not in the bundle"),
        (["--device", "cuda:1"], "Triton gives each instance its GPU"),
        (["--device", "tpu"], "device is 'tpu'"),
        (["--backend", "onnxruntime", "--device", "tensorrt"], "gets models for cpu or cuda"),
        (["--device", "cuda", "--threads", "2"], "threads is for the CPU"),
        (["--gpu", "L4"], "gpu is for the tensorrt backend"),
        (["--queue-delay", "-1"], "queue_delay is -1; expected 0 to"),
        (["--max-batch", "100000"], "max_batch is 100000; expected 1 to 4096"),
        (["--backend", "onnxruntime", "--alpha", "white"], "decode the images; leave them out"),
        (["--backend", "tensorrt"], "expected one TensorRT engine of the vision tower in fp32, got 0"),
    ],
)
def test_wrong_calls(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([str(tiny_bundle), str(tmp_path / "repository"), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "repository").exists()


def test_a_bundle_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nothing"), str(tmp_path / "repository")]) == 2
    assert "does not exist" in capsys.readouterr().err
