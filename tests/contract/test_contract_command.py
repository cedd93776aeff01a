"""Contract: `align-export --engine` on the command line, and engines when their bundle is exported again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from align_exporter.command import main
from align_runtime.bundle import Bundle
from align_runtime.engine_files import keep_engines
from align_runtime.engines import EngineEntry, engines_of
from align_runtime.errors import BundleError
from support.gpu_doubles import installed


def test_contract_lengths_that_do_not_fit_the_model_are_said_before_the_export(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(tiny_checkpoint), "-o", str(tmp_path / "new"), "--engine", "--engine-profile", "seq=8,16"]
    with installed("tensorrt-11"):
        assert main(command) == 2
    printed = capsys.readouterr().err
    assert "end it with seq=…,32" in printed
    assert "trace" not in printed
    assert list(tmp_path.iterdir()) == []


def test_contract_engines_move_into_the_new_bundle(engine_bundle: Path, tiny_fp16_bundle: Path, tmp_path: Path) -> None:
    manifest = Bundle.open(tiny_fp16_bundle).manifest
    same = Path(shutil.copytree(tiny_fp16_bundle, tmp_path / "same"))
    keep_engines(engine_bundle, same, manifest)
    assert engines_of(Bundle.open(same)) == engines_of(Bundle.open(engine_bundle))
    assert list((same / "engines").glob("*.timings"))
    changed = Path(shutil.copytree(tiny_fp16_bundle, tmp_path / "changed"))
    name = "onnx/vision_model_fp16.onnx"
    entry = replace(manifest.files[name], sha256="0" * 64)
    keep_engines(engine_bundle, changed, replace(manifest, files={**manifest.files, name: entry}))
    left = {(entry.tower, entry.variant) for entry in engines_of(Bundle.open(changed))}
    assert left == {("vision", "fp32"), ("text", "fp32"), ("text", "fp16")}


def test_contract_without_engines_there_is_no_folder(tiny_fp16_bundle: Path, tiny_copy: Path, tmp_path: Path) -> None:
    """From a bundle without engines, and from a folder that is not a bundle."""
    manifest = Bundle.open(tiny_fp16_bundle).manifest
    for previous in (tiny_copy, tmp_path / "nothing"):
        new = tmp_path / f"after {previous.name}"
        new.mkdir()
        keep_engines(previous, new, manifest)
        assert list(new.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ({"schema_version": 9}, "version 9"),
        ({"file": "../plan"}, "'../plan'"),
        ({"sha256": "0"}, "sha256"),
        ({"profiles": [{}]}, "profiles"),
        ({"profiles": [{"pixels": [0, 3]}]}, "profiles"),
        ({"machine": {"gpu": "x", "compute_capability": "nine", "driver": "13.0", "tensorrt": "11.4"}}, "'nine'"),
        ({"options": {}}, "hardware"),
        ({"seconds": "long"}, "seconds"),
    ],
)
def test_contract_a_damaged_description_is_refused(engine_copy: Path, change: dict[str, object], value: str) -> None:
    sidecar = min((engine_copy / "engines").glob("*.json"))
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | change))
    with pytest.raises(BundleError, match=value):
        EngineEntry.read(sidecar)
