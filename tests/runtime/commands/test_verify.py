"""align-verify as a user calls it: output, JSON, exit codes, and every kind of damage that it has to notice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from align_runtime.commands import verify
from align_runtime.selftest import check_graph
from support.forged_bundles import reseal


def test_verify_prints_tower_variant_and_distance(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(tiny_bundle), "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = [line.split() for line in printed.out.splitlines() if line.startswith(("vision", "text"))]
    assert [line[:3] for line in lines] == [
        ["vision", "fp32", "CPU,"],
        ["text", "fp32", "GPU"],
        ["text", "fp32", "CPU"],
    ]
    assert all(line[-1] == "ok" for line in lines)
    for word in ("every sha256 matches", "float32 100 %", "max abs error", "min cosine"):
        assert word in printed.out
    assert printed.out.endswith("\nall 3 graphs checked on cpu: passed\n")


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU is there, and computes what a CPU does."""
    monkeypatch.setattr(verify, "chosen_device", lambda options: "cuda")
    monkeypatch.setattr(verify, "check_graph", lambda *arguments: check_graph(*arguments[:3], "cpu", None))


def test_verify_tells_what_the_device_does_not_run(
    tiny_bundle: Path, on_cuda: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """The text graph for CPUs is of no use on a GPU; "all" is only said where it is so."""
    assert verify.main([str(tiny_bundle), "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith(
        "not checked: onnx/text_model_cpu.onnx: it is made for CPUs, not for cuda; use --device cpu\n"
        "2 of 3 graphs checked on cuda: passed\n"
    )
    assert "all " not in printed
    assert verify.main([str(tiny_bundle), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["ok"], result["complete"]) == (True, False)
    assert [check["file"] for check in result["checks"]] == ["onnx/vision_model.onnx", "onnx/text_model.onnx"]
    (left_out,) = result["not_checked"]
    assert (left_out["tower"], left_out["target"], left_out["file"]) == ("text", "cpu", "onnx/text_model_cpu.onnx")


def test_verify_of_some_precisions_and_towers(tiny_fp16_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def files(*options: str) -> tuple[list[str], list[str]]:
        assert verify.main([str(tiny_fp16_bundle), "--json", *options]) == 0
        result = json.loads(capsys.readouterr().out)
        return [check["file"] for check in result["checks"]], [entry["file"] for entry in result["not_checked"]]

    every = {"vision_model", "text_model", "vision_model_fp16", "text_model_fp16", "text_model_cpu"}
    for options, chosen in {
        ("--precision", "fp16"): {"vision_model_fp16", "text_model_fp16"},
        ("--precision", "fp32_cpu", "fp16", "--tower", "text"): {"text_model_cpu", "text_model_fp16"},
        ("--precision", "fp32", "--precision", "fp16"): every,
        ("--tower", "vision"): {"vision_model", "vision_model_fp16"},
        (): every,
    }.items():
        checked, left_out = files(*options)
        assert set(checked) == {f"onnx/{name}.onnx" for name in chosen}
        assert set(left_out) == {f"onnx/{name}.onnx" for name in every - chosen}


@pytest.mark.parametrize("options", [["--precision", "fp8"], ["--precision", "fp16", "fp32"], ["--tower", "audio"]])
def test_verify_of_what_is_not_there(tiny_bundle: Path, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(tiny_bundle), "--json", *options]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "ConfigurationError"


def test_verify_where_nothing_is_left_to_check(
    tiny_bundle: Path, bundle_copy: Path, on_cuda: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify.main([str(tiny_bundle), "--json", "--precision", "fp32_cpu"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "ConfigurationError"
    file = bundle_copy / "align.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"graphs": []}))
    assert verify.main([str(bundle_copy), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "BundleError"


def test_verify_as_json(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(tiny_bundle), "--json"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert printed.err == ""
    assert result["ok"] is True
    assert [(check["tower"], check["target"], check["ok"]) for check in result["checks"]] == [
        ("vision", "any", True),
        ("text", "any", True),
        ("text", "cpu", True),
    ]
    assert all(0 < check["parity"]["max_abs"] <= check["limits"]["max_abs"] for check in result["checks"])
    graphs = json.loads((tiny_bundle / "align.json").read_text())["graphs"]
    assert [check["content"] for check in result["checks"]] == [graph["content"] for graph in graphs]


def test_verify_notices_a_changed_byte(bundle_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = bundle_copy / "onnx" / "text_model.onnx"
    content = bytearray(graph.read_bytes())
    content[-100] ^= 1
    graph.write_bytes(content)
    assert verify.main([str(bundle_copy), "--quiet"]) == 2
    assert "onnx/text_model.onnx has sha256" in capsys.readouterr().err


def test_verify_notices_a_disturbed_weight_that_both_text_graphs_share(
    bundle_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load(bundle_copy / "onnx" / "text_model.onnx", load_external_data=False)
    weight = next(tensor for tensor in model.graph.initializer if "intermediate.dense/MatMul" in tensor.name)
    offset = next(int(entry.value) for entry in weight.external_data if entry.key == "offset")
    file = bundle_copy / "onnx" / "text_model.onnx_data"
    content = bytearray(file.read_bytes())
    content[offset : offset + 4] = np.float32(1.5).tobytes()
    file.write_bytes(content)
    assert verify.main([str(bundle_copy), "--quiet"]) == 2
    assert "onnx/text_model.onnx_data has sha256" in capsys.readouterr().err
    reseal(bundle_copy)
    assert verify.main([str(bundle_copy), "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert [check["target"] for check in result["checks"] if not check["ok"]] == ["any", "cpu"]
    assert result["failures"][1].startswith("onnx/text_model_cpu.onnx: max_abs is")


def test_verify_notices_a_disturbed_weight(bundle_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = bundle_copy / "onnx" / "vision_model.onnx"
    model = onnx.load(file)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("project_conv.weight"))
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[0] += 0.5
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, file)
    reseal(bundle_copy)
    assert verify.main([str(bundle_copy), "--quiet"]) == 1
    printed = capsys.readouterr().out
    assert "FAILED: onnx/vision_model.onnx: max_abs is" in printed
    assert printed.endswith("failed\n")


def test_verify_notices_a_swapped_token(bundle_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = bundle_copy / "tokenizer.json"
    values = json.loads(file.read_text())
    vocabulary = values["model"]["vocab"]
    vocabulary["a"], vocabulary["##a"] = vocabulary["##a"], vocabulary["a"]
    file.write_text(json.dumps(values))
    reseal(bundle_copy)
    assert verify.main([str(bundle_copy), "--json"]) == 1
    failures = json.loads(capsys.readouterr().out)["failures"]
    assert any("the tokens of 'a photo of a cat' differ" in failure for failure in failures)


def test_verify_notices_another_preprocessing(bundle_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = bundle_copy / "align.json"
    values = json.loads(file.read_text())
    values["preprocessing"]["resample"] = 3
    file.write_text(json.dumps(values))
    assert verify.main([str(bundle_copy), "--json"]) == 1
    failures = json.loads(capsys.readouterr().out)["failures"]
    assert any("the pixels of cat.jpg differ" in failure for failure in failures)


def test_verify_notices_embeddings_of_another_model(bundle_copy: Path) -> None:
    file = bundle_copy / "golden" / "text_embeds.npy"
    embeds = np.load(file)
    np.save(file, np.roll(embeds, 1, axis=0))
    reseal(bundle_copy)
    assert verify.main([str(bundle_copy), "--quiet"]) == 1


def change_manifest(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the first graph's entry in the manifest."""
    file = bundle / "align.json"
    values = json.loads(file.read_text())
    change(values["graphs"][0])
    file.write_text(json.dumps(values))


def recount(**shares: float) -> Callable[[dict[str, Any]], None]:
    """Spreads the MACs of an entry over other types."""

    def change(graph: dict[str, Any]) -> None:
        total = sum(graph["content"]["macs"].values())
        graph["content"]["macs"] = {dtype: int(share * total) for dtype, share in shares.items()}

    return change


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda graph: graph.update(variant="fp16"), "labelled fp16"),
        (lambda graph: graph.update(variant="int8"), "labelled int8"),
        (recount(float32=0.999, float16=0.001), "99.9 %"),
        (recount(), "0 %"),
    ],
)
def test_verify_notices_a_label_that_the_counts_contradict(
    bundle_copy: Path, change: Callable[[dict[str, Any]], None], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the manifest, whose counts are of the file with the hash beside them; the first graph alone fails."""
    change_manifest(bundle_copy, change)
    assert verify.main([str(bundle_copy), "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert [check["ok"] for check in result["checks"]] == [False, True, True]
    assert not result["ok"]
    (failure,) = result["failures"]
    assert failure.startswith("onnx/vision_model.onnx ")
    assert word in failure
    assert verify.main([str(bundle_copy), "--quiet"]) == 1
    printed = capsys.readouterr().out
    assert printed.count("FAILED: onnx/vision_model.onnx") == 1
    rows = [line for line in printed.splitlines() if line.startswith(("vision", "text"))]
    assert [line.endswith("FAILED") for line in rows] == [True, False, False]


def store_in_half(model: onnx.ModelProto) -> None:
    """A weight as FP16, cast back: the same arithmetic with a rounded weight."""
    weight = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("project_conv.weight"))
    name, values = weight.name, onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), "half"))
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["half"], [name], to=onnx.TensorProto.FLOAT))


def drop_types(model: onnx.ModelProto) -> None:
    """What the counts were made from."""
    del model.graph.value_info[:]


@pytest.mark.parametrize("change", [store_in_half, drop_types])
def test_a_graph_that_is_not_the_counted_one_is_caught_by_its_hash(
    bundle_copy: Path, change: Callable[[onnx.ModelProto], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where whoever changed it gave the manifest the new size: the counts belong to the hash."""
    file = bundle_copy / "onnx" / "vision_model.onnx"
    model = onnx.load(file)
    change(model)
    onnx.save(model, file)
    manifest = bundle_copy / "align.json"
    values = json.loads(manifest.read_text())
    values["files"]["onnx/vision_model.onnx"]["bytes"] = file.stat().st_size
    manifest.write_text(json.dumps(values))
    assert verify.main([str(bundle_copy), "--json"]) == 2
    printed = capsys.readouterr()
    assert "onnx/vision_model.onnx has sha256" in printed.err
    assert json.loads(printed.out)["error"]["type"] == "BundleError"


def test_verify_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("align-verify: error: ")
