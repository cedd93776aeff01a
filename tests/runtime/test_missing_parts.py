"""Bundles without the parts that are not needed, smaller copies, and files overwritten under an open model."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

import align_runtime
from align_runtime import Bundle, BundleError, ConfigurationError, golden
from align_runtime.commands import inspect, verify
from align_runtime.trimming import trim
from runtime.test_forks import run_program


def test_only_the_files_of_the_chosen_towers_are_needed(
    bundle_copy: Path, answers: golden.Golden, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle_copy / "onnx/vision_model.onnx").unlink()
    (bundle_copy / "onnx/text_model.onnx").unlink()  # the one for GPUs; its weights are also those of the other
    shutil.rmtree(bundle_copy / "golden")
    with align_runtime.load(bundle_copy, towers=("text",), check_hashes=True) as model:
        np.testing.assert_allclose(model.embed_texts(answers.texts), answers.text_embeds, rtol=0, atol=2e-5)
    with pytest.raises(BundleError, match=r"vision_model.onnx is missing"):
        align_runtime.load(bundle_copy)
    assert verify.main([str(bundle_copy)]) == 2
    assert "is missing" in capsys.readouterr().err
    (bundle_copy / "onnx/text_model.onnx_data").write_bytes(b"short")
    with pytest.raises(BundleError, match="has 5 bytes"):
        align_runtime.load(bundle_copy, towers=("text",))


def test_a_trimmed_bundle(tiny_bundle: Path, tmp_path: Path, answers: golden.Golden) -> None:
    whole = Bundle.open(tiny_bundle)
    small = trim(whole, tmp_path / "small", ["text"], [])
    assert {graph.tower for graph in small.manifest.graphs} == {"text"}
    assert "onnx/vision_model.onnx" not in small.manifest.files
    assert small.manifest.files.items() < whole.manifest.files.items()
    on_disk = {path.relative_to(small.folder).as_posix() for path in small.folder.rglob("*") if path.is_file()}
    assert on_disk == {"align.json", *small.manifest.files}
    assert small.manifest.provenance.options["trimmed"] == ["text fp32"]  # so an export does not take it for its own
    with align_runtime.load(small.folder, towers=("text",)) as model:
        np.testing.assert_allclose(model.embed_texts(answers.texts), answers.text_embeds, rtol=0, atol=2e-5)
    with pytest.raises(ConfigurationError, match=r"no vision graphs.*towers=\('text',\)"):
        align_runtime.load(small.folder)


def test_trimming_by_the_command(bundle_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "vision"
    assert inspect.main([str(bundle_copy), "--trim", str(out), "--towers", "vision", "--precisions", "fp32"]) == 0
    assert "onnx/vision_model.onnx" in capsys.readouterr().out
    assert verify.main([str(out), "--quiet"]) == 0
    assert inspect.main([str(out), "--trim", str(out), "--towers", "vision"]) == 0  # in place
    assert inspect.main([str(out), "--trim", str(out), "--towers", "text"]) == 2
    assert inspect.main([str(out), "--towers", "text"]) == 2
    assert inspect.main([str(out), "--trim", str(tmp_path / "x"), "--precisions", "int4"]) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "vision"}
    (bundle_copy / "golden").mkdir(exist_ok=True)
    changed = next((bundle_copy / "golden").glob("*.npy"))
    changed.write_bytes(changed.read_bytes()[:-1] + b"x")
    capsys.readouterr()
    assert inspect.main([str(bundle_copy), "--trim", str(out)]) == 2  # never a new hash for a changed file
    assert f"{bundle_copy}: golden/{changed.name} has sha256" in capsys.readouterr().err
    assert Bundle.open(out).manifest.graphs[0].tower == "vision"


def test_a_bundle_without_a_graph_is_inspected_and_trimmed(
    bundle_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle_copy / "onnx/vision_model.onnx").unlink()
    assert inspect.main([str(bundle_copy)]) == 0
    assert "missing: onnx/vision_model.onnx" in capsys.readouterr().out
    assert inspect.main([str(bundle_copy), "--json", "--trim", str(tmp_path / "text"), "--towers", "text"]) == 0
    assert json.loads(capsys.readouterr().out)["missing_files"] == []
    assert verify.main([str(tmp_path / "text"), "--quiet"]) == 0
    assert inspect.main([str(bundle_copy), "--trim", str(tmp_path / "x")]) == 2
    assert "onnx/vision_model.onnx is missing" in capsys.readouterr().err


def test_a_bundle_is_not_trimmed_into_itself(tiny_bundle: Path) -> None:
    with pytest.raises(ConfigurationError, match="is inside the bundle"):
        trim(Bundle.open(tiny_bundle), tiny_bundle / "onnx" / "small", ["text"], [])


OVERWRITTEN = """
import sys
from pathlib import Path
import numpy as np
import align_runtime

texts = [f"a photo of {word}" for word in ("a cat", "a dog", "a heart", "a star", "a ring", "a circle")]
with align_runtime.load(sys.argv[1], mmap=False, threads=2, check_hashes=True) as model:
    expected = [model.embed_texts(texts[:1]), model.embed_texts(texts)]
with align_runtime.load(sys.argv[1], mmap=False, threads=2) as model:
    for file in Path(sys.argv[1], "onnx").iterdir():
        with file.open("r+b") as stream:  # in place
            stream.write(bytes(file.stat().st_size // 2))
            stream.truncate()
    np.testing.assert_array_equal(model.embed_texts(texts[:1]), expected[0])
    np.testing.assert_array_equal(model.embed_texts(texts), expected[1])
print("same")
"""


def test_files_overwritten_in_place_without_mmap(bundle_copy: Path) -> None:
    assert run_program(OVERWRITTEN, str(bundle_copy)) == "same\n"


@pytest.mark.parametrize("option", ["mmap", "arena"])
def test_options_of_memory_change_no_row(tiny_bundle: Path, answers: golden.Golden, option: str) -> None:
    with align_runtime.load(tiny_bundle) as first, align_runtime.load(tiny_bundle, **{option: False}) as other:  # type: ignore[arg-type]
        np.testing.assert_array_equal(other.embed_texts(answers.texts), first.embed_texts(answers.texts))
        np.testing.assert_array_equal(other.embed_images(answers.images), first.embed_images(answers.images))


def test_fp16_on_a_cpu_is_warned_of(tiny_fp16_bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), align_runtime.load(tiny_fp16_bundle, precision="fp32"):
        assert caplog.text == ""
    with align_runtime.load(tiny_fp16_bundle, precision="fp16"):
        assert "fp16 on a CPU takes more memory than fp32" in caplog.text
