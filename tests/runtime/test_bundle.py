"""Opening a bundle: what is refused, and the errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest

import align_runtime
from align_runtime import Bundle, BundleError, ConfigurationError
from align_runtime.bundle import sha256_of
from align_runtime.bundle_writing import inventory
from align_runtime.graph_entry import TOWERS
from align_runtime.manifest import MANIFEST_NAME, REPORT_NAMES, SCHEMA_VERSION, Manifest


def edit(bundle: Path, change: Any) -> None:
    file = bundle / MANIFEST_NAME
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def entry_of(file: Path) -> dict[str, Any]:
    """The entry of `file` in the manifest."""
    return {"bytes": file.stat().st_size, "sha256": sha256_of(file)}


def test_manifest_survives_a_round_trip(tiny_bundle: Path) -> None:
    text = (tiny_bundle / MANIFEST_NAME).read_text()
    manifest = Bundle.open(tiny_bundle).manifest
    assert json.dumps(manifest.to_json(), indent=2, ensure_ascii=False) + "\n" == text
    assert Manifest.from_json(json.loads(text), "again") == manifest


def test_manifest_lists_every_file(tiny_bundle: Path) -> None:
    """Except the report, which describes one build and is not part of the bundle's content."""
    listed = Bundle.open(tiny_bundle).manifest.files
    there = inventory(tiny_bundle)
    assert {there.pop(name).bytes > 0 for name in REPORT_NAMES} == {True}
    assert listed == there


def test_missing_folder_and_foreign_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nowhere does not exist"):
        Bundle.open(tmp_path / "nowhere")
    with pytest.raises(BundleError, match="not a bundle"):
        Bundle.open(tmp_path)


def test_manifest_that_is_no_json(bundle_copy: Path) -> None:
    (bundle_copy / MANIFEST_NAME).write_text("{")
    with pytest.raises(BundleError, match="not valid JSON"):
        Bundle.open(bundle_copy)


def test_another_schema_version(bundle_copy: Path) -> None:
    edit(bundle_copy, lambda values: values.update(schema_version=1))
    with pytest.raises(BundleError, match=f"schema version 1.* version {SCHEMA_VERSION}"):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "onnx/../../secret", "", ".", "a\\b", "c:x", "align.json"]
)
def test_a_path_that_leaves_the_bundle(bundle_copy: Path, name: str) -> None:
    def redirect(values: Any) -> None:
        values["graphs"][0]["file"] = name
        values["files"][name] = values["files"]["onnx/vision_model.onnx"]

    edit(bundle_copy, redirect)
    with pytest.raises(BundleError, match="not a plain path"):
        Bundle.open(bundle_copy)


def test_a_link_that_leaves_the_bundle(bundle_copy: Path, tmp_path: Path) -> None:
    graph = bundle_copy / "onnx" / "text_model.onnx"
    graph.rename(tmp_path / "outside.onnx")
    graph.symlink_to(tmp_path / "outside.onnx")
    with pytest.raises(BundleError, match="link"):
        Bundle.open(bundle_copy)


def test_a_missing_file_and_a_shorter_file(bundle_copy: Path) -> None:
    graph = bundle_copy / "onnx" / "text_model.onnx"
    content = graph.read_bytes()
    graph.write_bytes(content[:-1])
    with pytest.raises(BundleError, match=rf"{len(content) - 1} bytes, expected {len(content)}"):
        Bundle.open(bundle_copy)
    graph.unlink()
    with pytest.raises(BundleError, match="is missing"):
        Bundle.open(bundle_copy)


def test_a_changed_byte(bundle_copy: Path) -> None:
    graph = bundle_copy / "onnx" / "vision_model.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    Bundle.open(bundle_copy)
    with pytest.raises(BundleError, match=r"onnx/vision_model\.onnx has sha256"):
        align_runtime.load(bundle_copy, check_hashes=True)


def test_a_changed_tokenizer_is_always_noticed(bundle_copy: Path) -> None:
    file = bundle_copy / "tokenizer.json"
    file.write_bytes(file.read_bytes().replace(b"[UNK]", b"[UNX]", 1))
    with pytest.raises(BundleError, match=r"tokenizer\.json has sha256"):
        align_runtime.load(bundle_copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.pop("model"), "the key 'model' is missing"),
        (lambda values: values["model"].update(embedding_dim="64"), "embedding_dim is '64' (str); expected int"),
        (lambda values: values["model"].update(max_length=1), "max_length is 1; expected 2 to 65536"),
        (lambda values: values["graphs"][0].update(tower="audio"), "tower is 'audio'"),
        (lambda values: values["graphs"][0]["inputs"][0].update(dtype="object"), "dtype is 'object'"),
        (lambda values: values["files"]["config.json"].update(sha256="0"), "sha256 is '0'"),
        (lambda values: values["files"].pop("onnx/text_model.onnx"), "is not in the list of files"),
        (lambda values: values["files"].pop("onnx/text_model.onnx_data"), "is not in the list of files"),
        (lambda values: values["graphs"][1].pop("data"), "the key 'data' is missing"),
        (lambda values: values["graphs"][1].update(data="../data"), "not a plain path"),
        (lambda values: values["graphs"][2].update(target="abacus"), "target is 'abacus'"),
        (lambda values: values["graphs"][2].pop("content"), "graph 2: the key 'content' is missing"),
        (lambda values: values["graphs"][0]["content"]["macs"].update(float99=1), "float99"),
        (
            lambda values: values["graphs"][1]["content"]["weights"].update(float32=-1),
            "float32 is -1; expected 0 to 9223372036854775807",
        ),
        (lambda values: values["preprocessing"].update(colour="cmyk"), "colour"),
    ],
)
def test_damaged_manifest(bundle_copy: Path, change: Any, message: str) -> None:
    edit(bundle_copy, change)
    with pytest.raises(BundleError) as caught:
        Bundle.open(bundle_copy)
    assert message in str(caught.value)


def test_a_graph_of_another_width(bundle_copy: Path) -> None:
    edit(bundle_copy, lambda values: values["model"].update(embedding_dim=5))
    with align_runtime.load(bundle_copy) as model:
        assert model.embed_texts([]).shape == (0, 5)
        with pytest.raises(BundleError, match=r"text_model_cpu.onnx .*\(1, 96\), expected float32 \(1, 5\)"):
            model.embed_texts(["a cat"])


@pytest.mark.parametrize("place", ["../../outside", "/etc/passwd"])
def test_external_data_outside_of_the_bundle(bundle_copy: Path, place: str) -> None:
    file = bundle_copy / "onnx" / "text_model_cpu.onnx"
    shutil.copy(bundle_copy / "onnx" / "text_model.onnx_data", bundle_copy.parent / "outside")
    model = onnx.load(file, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = place
    file.write_bytes(model.SerializeToString())
    edit(bundle_copy, lambda values: values["files"].update({"onnx/text_model_cpu.onnx": entry_of(file)}))
    with pytest.raises(BundleError, match=rf"text_model_cpu\.onnx has weights in b'{place}'"):
        align_runtime.load(bundle_copy)


def test_unknown_precision_names_those_that_are_there(tiny_bundle: Path) -> None:
    with pytest.raises(ConfigurationError, match="it has: fp32; export it again with --fp16"):
        align_runtime.load(tiny_bundle, precision="fp16")
    with pytest.raises(ConfigurationError, match="'fp8' .*it has: fp32$"):
        align_runtime.load(tiny_bundle, precision="fp8")


def test_the_graph_for_the_device_is_preferred_to_the_one_for_any(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    files = {(tower, device): bundle.graph(tower, "fp32", device).file for tower in TOWERS for device in ("cpu", "gpu")}
    assert files == {
        ("vision", "cpu"): "onnx/vision_model.onnx",
        ("vision", "gpu"): "onnx/vision_model.onnx",
        ("text", "cpu"): "onnx/text_model_cpu.onnx",
        ("text", "gpu"): "onnx/text_model.onnx",
    }


def test_a_variant_for_another_device_is_not_taken(bundle_copy: Path) -> None:
    edit(bundle_copy, lambda values: values["graphs"].pop(1))
    bundle = Bundle.open(bundle_copy)
    assert bundle.graph("text", "fp32", "cpu").target == "cpu"
    with pytest.raises(ConfigurationError, match="'fp32' .*text tower on gpu; it has: none$"):
        bundle.graph("text", "fp32", "gpu")


def test_shared_weights_that_are_missing_or_changed(bundle_copy: Path) -> None:
    data = bundle_copy / "onnx" / "text_model.onnx_data"
    content = bytearray(data.read_bytes())
    content[0] ^= 1
    data.write_bytes(content)
    with pytest.raises(BundleError, match=r"onnx/text_model\.onnx_data has sha256"):
        align_runtime.load(bundle_copy, check_hashes=True)
    data.unlink()
    with pytest.raises(BundleError, match="onnx_data is missing"):
        Bundle.open(bundle_copy)
