"""Bundles of a stranger: files that are not listed or are no files, values that are nonsense, limits that are none."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

import align_runtime
from align_bench import command as bench
from align_runtime.bundle import Bundle
from align_runtime.commands import classify, inspect, verify
from align_runtime.errors import BundleError, ConfigurationError
from align_runtime.manifest import MANIFEST_NAME, MAX_FILES, MAX_MANIFEST_BYTES

Change = Callable[[dict[str, Any]], object]


def edit(bundle: Path, change: Change) -> None:
    file = bundle / MANIFEST_NAME
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def digest(bundle: Path) -> str:
    return sha256((bundle / MANIFEST_NAME).read_bytes()).hexdigest()


# What a session reads


def test_weights_that_the_manifest_does_not_name_are_not_loaded(bundle_copy: Path) -> None:
    """`"data": null` used to switch off the check of weights that ONNX Runtime reads all the same."""
    edit(bundle_copy, lambda values: [graph.update(data=None) for graph in values["graphs"]])
    data = bundle_copy / "onnx/text_model.onnx_data"
    data.write_bytes(bytes(data.stat().st_size))  # as many zeros
    for check_hashes in (False, True):
        with pytest.raises(BundleError, match="has weights in b'text_model.onnx_data', but the manifest lists no file"):
            align_runtime.load(bundle_copy, check_hashes=check_hashes)


def test_weights_of_another_name_or_folder(bundle_copy: Path) -> None:
    shutil.copy(bundle_copy / "onnx/text_model.onnx_data", bundle_copy / "onnx/other")
    size, digits = (bundle_copy / "onnx/other").stat().st_size, "0" * 64

    def rename(values: dict[str, Any]) -> None:
        values["files"]["onnx/other"] = {"bytes": size, "sha256": digits}
        for graph in values["graphs"]:
            graph["data"] = graph["data"] and "onnx/other"

    edit(bundle_copy, rename)
    with pytest.raises(BundleError, match="but the manifest lists other for it"):
        align_runtime.load(bundle_copy)
    edit(bundle_copy, lambda values: [graph.update(data="config.json") for graph in values["graphs"]])
    with pytest.raises(BundleError, match="expected a file in the folder of onnx/vision_model.onnx"):
        align_runtime.load(bundle_copy)


def test_a_file_in_another_format_than_onnx(bundle_copy: Path) -> None:
    """ONNX Runtime takes the format from the end of the name."""
    shutil.copy(bundle_copy / "onnx/vision_model.onnx", bundle_copy / "onnx/vision_model.ort")

    def rename(values: dict[str, Any]) -> None:
        values["files"]["onnx/vision_model.ort"] = values["files"]["onnx/vision_model.onnx"]
        values["graphs"][0]["file"] = "onnx/vision_model.ort"

    edit(bundle_copy, rename)
    with pytest.raises(BundleError, match=r"expected a name that ends with \.onnx"):
        Bundle.open(bundle_copy)


# A bundle that is pinned


def test_a_pinned_bundle_loads_and_another_does_not(bundle_copy: Path, tiny_bundle: Path) -> None:
    pin = digest(tiny_bundle)
    with align_runtime.load(tiny_bundle, manifest_sha256=pin) as model:
        assert model.info.name == "align-tiny"
    edit(bundle_copy, lambda values: values["model"].update(temperature=0.5))  # a change that every hash survives
    align_runtime.load(bundle_copy, check_hashes=True).close()
    with pytest.raises(BundleError, match=f"sha256 {digest(bundle_copy)}, expected {pin}"):
        align_runtime.load(bundle_copy, manifest_sha256=pin)


def test_a_pin_checks_the_hashes_of_what_is_used(bundle_copy: Path) -> None:
    graph = bundle_copy / "onnx/vision_model.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    with pytest.raises(BundleError, match=r"onnx/vision_model\.onnx has sha256"):
        align_runtime.load(bundle_copy, manifest_sha256=digest(bundle_copy))


@pytest.mark.parametrize("pin", ["", "abc", "0" * 63, "G" * 64, 7])
def test_a_pin_that_is_none(tiny_bundle: Path, pin: Any) -> None:
    with pytest.raises(ConfigurationError, match="manifest_sha256 is .*expected 64 hexadecimal digits"):
        align_runtime.load(tiny_bundle, manifest_sha256=pin)


def test_engines_cannot_be_pinned(tiny_bundle: Path) -> None:
    with pytest.raises(ConfigurationError, match="tensorrt:1 runs engines, which the manifest does not list"):
        align_runtime.load(tiny_bundle, device="tensorrt:1", manifest_sha256=digest(tiny_bundle))


def test_commands_take_a_pin(tiny_bundle: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([str(tiny_bundle)]) == 0
    assert f"sha256 {digest(tiny_bundle)}" in capsys.readouterr().out
    image = str(tiny_checkpoint / "demo/green-heart.png")
    for main, arguments in (
        (inspect.main, [str(tiny_bundle)]),
        (verify.main, [str(tiny_bundle), "--quiet"]),
        (classify.main, [str(tiny_bundle), image, "--labels", "a", "b"]),
        (bench.main, ["run", str(tiny_bundle), "--quick"]),
        (bench.main, ["scaling", str(tiny_bundle)]),
    ):
        assert main([*arguments, "--manifest-sha256", "0" * 64]) == 2
        assert "this is not the bundle that was pinned" in capsys.readouterr().err
        assert main([*arguments, "--manifest-sha256", "beef"]) == 2
        assert "--manifest-sha256" in capsys.readouterr().err
    assert classify.main([str(tiny_bundle), image, "--labels", "a", "--manifest-sha256", digest(tiny_bundle)]) == 0


# Files that are no files


@pytest.mark.parametrize("name", ["align.json", "tokenizer.json", "config.json", "golden/texts.json"])
@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "link to a device"])
def test_what_is_no_file_never_blocks(bundle_copy: Path, name: str, kind: str) -> None:
    path = bundle_copy / name
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(BundleError, match=f"{name} is (not a regular file|a link that leaves the bundle)"):
        Bundle.open(bundle_copy)


def test_a_manifest_without_end(bundle_copy: Path) -> None:
    with (bundle_copy / MANIFEST_NAME).open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(BundleError, match=f"expected at most {MAX_MANIFEST_BYTES}"):
        Bundle.open(bundle_copy)


def test_links_in_a_circle(bundle_copy: Path) -> None:
    (bundle_copy / "config.json").unlink()
    (bundle_copy / "config.json").symlink_to("config.json")
    with pytest.raises(BundleError, match=r"config\.json is missing"):
        Bundle.open(bundle_copy)


def test_a_file_is_read_once_and_hashed(bundle_copy: Path) -> None:
    bundle = Bundle.open(bundle_copy)
    content = (bundle_copy / "config.json").read_bytes()
    assert bundle.read("config.json", 1 << 20) == content
    with pytest.raises(BundleError, match=f"{len(content)} bytes; expected at most 10"):
        bundle.read("config.json", 10)
    (bundle_copy / "config.json").write_bytes(content[::-1])
    with pytest.raises(BundleError, match=r"config\.json has sha256"):
        bundle.read("config.json", 1 << 20)


# Values that are legal JSON and nonsense

NONSENSE: list[tuple[Change, str]] = [
    (lambda v: v["model"].update(temperature=1e-310), "temperature is 1e-310; expected 1e-06 to 1000000.0"),
    (lambda v: v["model"].update(temperature=-1), "temperature is -1.0"),
    (lambda v: v["model"].update(temperature=10**400), "too large for a float"),
    (lambda v: v["model"].update(max_length=10**30), "max_length is 1000000000"),
    (lambda v: v["model"].update(embedding_dim=1 << 60), "embedding_dim is 1152921504606846976; expected 1 to 65536"),
    (lambda v: v["model"].update(pad_token_id=-1), "pad_token_id is -1"),
    (lambda v: v["model"].update(pad_token_id=v["model"]["vocab_size"]), "expected an id below vocab_size"),
    (lambda v: v["model"].update(vocab_size=0), "vocab_size is 0"),
    (lambda v: v["graphs"][0].update(opset=10**9), "opset is 1000000000; expected 1 to 1000"),
    (lambda v: v["graphs"][0].update(inputs=[]), "inputs of the vision tower are ()"),
    (lambda v: v["graphs"][0].update(inputs=v["graphs"][1]["inputs"]), "inputs of the vision tower"),
    (lambda v: v["graphs"][0].update(outputs=[]), "outputs are ()"),
    (lambda v: v["graphs"][0]["inputs"][0].update(shape=["batch", 1 << 60, 1, 3]), "dimension of 1152921504606846976"),
    (lambda v: v["graphs"][0]["inputs"][0].update(shape=["batch"] * 1000), "1000 dimensions"),
    (lambda v: v["graphs"][0]["inputs"][0].update(name="x" * 5000), "5000 characters"),
    (lambda v: v["graphs"][0].update(variant="fp32\u202e"), "variant is 'fp32\\u202e'"),
    (lambda v: v["graphs"][0].update(islands=[{"nodes": [], "reasons": []}]), "no nodes or no reasons"),
    (lambda v: v["graphs"][0]["limits"].update(max_abs=1e308), "max_abs is 1e+308; expected 0 to 2.0"),
    (lambda v: v["graphs"][0]["limits"].update(min_cosine=-1e308), "min_cosine is -1e+308"),
    (lambda v: v["graphs"][0]["parity"].update(rows=-1), "rows is -1"),
    (lambda v: v["graphs"][0]["parity"].update(min_cosine=7), "min_cosine is 7.0"),
    (lambda v: v["graphs"][0]["content"]["macs"].update(float32=1 << 70), "expected 0 to 9223372036854775807"),
    (lambda v: v.update(graphs=[]), "0 graphs"),
    (lambda v: v.update(graphs=v["graphs"] * 100), "300 graphs"),
    (
        lambda v: v["files"].update({f"{n}": {"bytes": 0, "sha256": "0" * 64} for n in range(MAX_FILES)}),
        "files; expected",
    ),
    (lambda v: v["files"]["config.json"].update(bytes=1 << 60), "bytes is 1152921504606846976"),
    (lambda v: v["files"].update({"a\x1b[2Jb": v["files"]["config.json"]}), "'a\\x1b[2Jb' is not a plain path"),
    (lambda v: v["files"].update({"a\u202eb": v["files"]["config.json"]}), "is not a plain path"),
    (lambda v: v["files"].update({"\ud800": v["files"]["config.json"]}), "half of a surrogate pair"),
    (lambda v: v["files"].update({"a/" * 400 + "b": v["files"]["config.json"]}), "is not a plain path"),
    (lambda v: v["provenance"].update(random_weights=1 << 63), "random_weights is 9223372036854775808; expected 0 to"),
    (lambda v: v["provenance"].update(random_weights=-1), "random_weights is -1"),
    (lambda v: v["provenance"].update(name="n" * 10_000_000), "10000000 characters; expected at most 4096"),
    (lambda v: v["provenance"]["options"].update(deep=json.loads("[" * 40 + "]" * 40)), "deeper than 8 levels"),
    (lambda v: v["provenance"]["options"].update(deep=json.loads("[" * 400 + "]" * 400)), "more than 64 deep"),
    (lambda v: v["provenance"]["tools"].update({"t" * 5000: "1"}), "5000 characters"),
    (lambda v: v["preprocessing"].update(crop_size={"height": 10**9, "width": 10**9}), "crop_size"),
]


@pytest.mark.parametrize(("change", "words"), NONSENSE, ids=range(len(NONSENSE)))
def test_nonsense_in_the_manifest(bundle_copy: Path, change: Change, words: str) -> None:
    edit(bundle_copy, change)
    with pytest.raises(BundleError) as caught:
        Bundle.open(bundle_copy)
    assert words in str(caught.value)
    assert len(str(caught.value)) <= 500
    assert str(caught.value).isprintable()


def test_numbers_in_options_are_finite(bundle_copy: Path) -> None:
    text = (bundle_copy / MANIFEST_NAME).read_text().replace('"options": {', '"options": {"x": [1e999],', 1)
    (bundle_copy / MANIFEST_NAME).write_text(text)
    with pytest.raises(BundleError, match="options is inf; expected a finite number"):
        Bundle.open(bundle_copy)


# Limits that a bundle gives of itself


def test_verify_does_not_believe_wide_limits(bundle_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(
        bundle_copy,
        lambda values: values["graphs"][0].update(limits={"max_abs": 2, "min_cosine": -1, "min_centred_cosine": -1}),
    )
    assert verify.main([str(bundle_copy), "--quiet"]) == 1
    printed = capsys.readouterr().out
    for limit in ("max_abs 2, wider than the 5e-05", "min_cosine -1, wider than the 0.999999", "min_centred_cosine -1"):
        assert f"FAILED: onnx/vision_model.onnx: the bundle allows itself {limit}" in printed
    assert printed.endswith("all 3 graphs checked on cpu: failed\n")
    assert verify.main([str(bundle_copy), "--quiet", "--accept-limits"]) == 0


def test_verify_of_a_bundle_without_graphs_fails(bundle_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle_copy, lambda values: values["graphs"].clear())
    assert verify.main([str(bundle_copy)]) == 2
    assert "0 graphs" in capsys.readouterr().err


def test_verify_that_compares_nothing_fails(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bundle, "graphs_on", lambda *_: [])
    assert verify.main([str(tiny_bundle), "--quiet", "--json"]) == 2
    assert "is left to check on cpu" in json.loads(capsys.readouterr().out)["error"]["message"]
