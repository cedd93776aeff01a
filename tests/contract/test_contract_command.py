"""Contract: `align-export --engine` from the command line, and engines over the life of a bundle."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from align_exporter.command import main
from align_exporter.engine.cache import keep_engines
from align_runtime.bundle import Bundle
from align_runtime.engines import EngineEntry, engines_of
from align_runtime.errors import BundleError
from support.gpu_doubles import installed


def test_contract_export_builds_engines_and_then_finds_them(
    tiny_checkpoint: Path, tiny_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(tiny_checkpoint), "-o", str(tiny_copy), "--fp16", "--engine", "--engine-variants", "fp16"]
    with installed("tensorrt-11"):
        assert main([*command, "--profile", "batch=1,2", "seq=32", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["built"] is False  # the graphs were there
        assert [(engine["tower"], engine["built"], engine["reason"]) for engine in told["engines"]] == [
            ("vision", True, "there is none yet"), ("text", True, "there is none yet"),
        ]  # fmt: skip
        assert main([*command, "--profile", "batch=1,2", "seq=32"]) == 0
        assert capsys.readouterr().out.count("up to date") == 3  # the bundle and both engines
        assert main([*command, "--profile", "batch=1", "seq=32"]) == 0
        assert capsys.readouterr().out.count("other profiles") == 2
        assert main([*command, "--profile", "seq=8,16"]) == 2
        assert "this model's longest text has 32 tokens" in capsys.readouterr().err
        assert main([*command[:-1], "int4"]) == 2
        assert "precision 'int4' is not in the bundle" in capsys.readouterr().err


def test_contract_engines_move_to_the_bundle_that_takes_the_place(
    engine_bundle: Path, tiny_fp16_bundle: Path, tmp_path: Path
) -> None:
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


def test_contract_nothing_moves_from_what_is_no_bundle(tiny_fp16_bundle: Path, tmp_path: Path) -> None:
    keep_engines(tmp_path / "nothing", tmp_path, Bundle.open(tiny_fp16_bundle).manifest)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 9}, "schema version 9; this runtime reads version 1"),
        ({"file": "../plan"}, "'../plan' is not a plain path"),
        ({"sha256": "0"}, "sha256 is '0'"),
        ({"profiles": [{}]}, "expected inputs whose sizes"),
        ({"profiles": [{"pixels": [0, 3]}]}, "expected inputs whose sizes"),
        ({"machine": {"gpu": "x", "compute_capability": "nine", "driver": "13.0", "tensorrt": "11.4"}}, "'nine' is no"),
        ({"options": {}}, "hardware"),
        ({"seconds": "long"}, "seconds"),
    ],
)
def test_contract_a_damaged_description_is_named(engine_copy: Path, change: dict[str, object], message: str) -> None:
    sidecar = min((engine_copy / "engines").glob("*.json"))
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | change))
    with pytest.raises(BundleError, match=message):
        EngineEntry.read(sidecar)
