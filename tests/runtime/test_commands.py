"""align-verify, align-inspect and align-classify as a user calls them: output, JSON, exit codes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from align_runtime.bundle import Bundle, inventory
from align_runtime.commands import classify, inspect, verify
from align_runtime.graph_entry import Island, Quantization
from align_runtime.manifest import Manifest


def reseal(bundle: Path) -> None:
    """Gives a changed bundle the hashes of its changed files, as someone who forges one would."""
    file = bundle / "align.json"
    values = json.loads(file.read_text())
    values["files"] = {name: vars(entry) for name, entry in inventory(bundle).items()}
    file.write_text(json.dumps(values))


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
    for word in ("every sha256 matches", "float32 100 %", "max abs error", "min cosine", "all checks passed"):
        assert word in printed.out


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


def test_inspect_prints_the_essence(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([str(tiny_bundle)]) == 0
    printed = capsys.readouterr().out
    for word in ("ALIGN bundle of align-tiny", "onnx/text_model.onnx", "fp32", "opset 20", "torch 2", "65×65 pixels"):
        assert word in printed
    assert "_input" not in printed  # no names of options
    rows = [line.split() for line in printed.splitlines() if line.startswith(("vision", "text"))]
    assert [row[:3] for row in rows] == [["vision", "fp32", "CPU,"], ["text", "fp32", "GPU"], ["text", "fp32", "CPU"]]
    counts = printed[printed.index("MACs per input") :].splitlines()
    assert [line.count("float32 100 %") for line in counts[2:]] == [2, 2, 2]


def test_inspect_as_json(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([str(tiny_bundle), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result) == [
        "bundle", "schema_version", "provenance", "model", "preprocessing", "graphs", "files", "engines",
    ]  # fmt: skip
    for graph in result["graphs"]:
        files = [graph["file"]] + ([graph["data"]] if graph["data"] else [])
        assert graph["bytes"] == sum((tiny_bundle / file).stat().st_size for file in files)
        assert sum(graph["content"]["macs"].values()) > sum(graph["content"]["weights"].values()) > 0
    assert result["provenance"]["options"]["pixel_input"] == "uint8"


def forged(bundle: Path, **changes: Any) -> Manifest:
    """The manifest of `bundle` with `changes` to its graph for text on CPUs."""
    manifest = Bundle.open(bundle).manifest
    graphs = [replace(graph, **changes) if graph.target == "cpu" else graph for graph in manifest.graphs]
    return replace(manifest, graphs=tuple(graphs))


@pytest.mark.parametrize(
    ("quantization", "words"),
    [
        (Quantization("percentile 99.99", 128, 1.31), ["'percentile 99.99' on 128 captions", "1.31 times as fast as"]),
        (Quantization("per token", 0, 0.8), ["dynamic per-token", "NOT FASTER", "0.80 times"]),
        (Quantization("per token", 0, 1.0), ["NOT FASTER", "1.00 times"]),
        (Quantization("mse", 9, None, ("a",)), ["'mse' on 9 captions", "1 part in float", "not measured"]),
        (Quantization("mse", 9, None, ("a", "b")), ["2 parts in float"]),
    ],
)
def test_inspect_says_how_fast_int8_is(tiny_bundle: Path, quantization: Quantization, words: list[str]) -> None:
    (line,) = inspect.quantization_lines(forged(tiny_bundle, variant="int8", quantization=quantization))
    assert line.startswith("onnx/text_model_cpu.onnx: ")
    for word in words:
        assert word in line
    assert ("NOT FASTER" in line) == ("NOT FASTER" in words)


@pytest.mark.parametrize(
    ("nodes", "reasons", "line"),
    [
        (("/Pow",), ("it reaches 1e+05",), "/Pow stays FP32: it reaches 1e+05"),
        (("/Pow", "/Add"), ("a", "b"), "/Pow and 1 other operator stay FP32: a (1 more reason in report.html)"),
        (("/Pow", "/Add", "/C"), ("a", "b", "c"), "/Pow and 2 other operators stay FP32: a (2 more reasons in"),
    ],
)
def test_inspect_lists_islands(tiny_bundle: Path, nodes: Any, reasons: Any, line: str) -> None:
    (found,) = inspect.island_lines(forged(tiny_bundle, islands=(Island(nodes, reasons),)))
    assert found.startswith(f"onnx/text_model_cpu.onnx: {line}")


def test_devices_of_graphs_in_words(tiny_bundle: Path) -> None:
    manifest = Bundle.open(tiny_bundle).manifest
    assert [inspect.runs_on(graph, manifest) for graph in manifest.graphs] == ["CPU, GPU", "GPU", "CPU"]
    quantized = replace(manifest.graphs[1], variant="int8", target="gpu", quantization=Quantization("mse", 9, None))
    assert inspect.runs_on(quantized, manifest) == "GPU (TensorRT)"


def test_inspect_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.startswith("align-inspect: error: ")


def test_classify_prints_a_table(tiny_bundle: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = sorted(str(path) for path in (tiny_checkpoint / "demo").glob("*.png"))
    assert classify.main([str(tiny_bundle), *images, "--labels", "red circle", "blue square", "--top", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["image", "label", "probability"]
    assert len(lines) == 2 + len(images)
    assert all(line.endswith("%") for line in lines[2:])


def test_classify_as_json_with_a_file_of_labels(
    tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels.txt").write_text("red circle\n\nblue square\n")
    image = str(next((tiny_checkpoint / "demo").glob("*.png")))
    assert classify.main([str(tiny_bundle), image, "--labels-file", str(tmp_path / "labels.txt"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["labels"] == ["red circle", "blue square"]
    (image,) = result["images"]
    assert sum(image["probabilities"]) == pytest.approx(1, abs=1e-5)
    assert image["best"] in result["labels"]


def test_names_that_are_no_unicode_and_labels_of_a_windows_editor(
    tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / os.fsdecode(b"caf\xe9.png")
    shutil.copy(tiny_checkpoint / "demo" / "green-heart.png", image)
    (tmp_path / "labels.txt").write_bytes("\ufeffgreen heart\r\nred star é\r\n".encode())
    arguments = [str(tiny_bundle), str(image), "--labels-file", str(tmp_path / "labels.txt")]
    assert classify.main([*arguments, "--json"]) == 0
    printed = capsys.readouterr().out
    assert printed.isascii()  # the same bytes in every locale
    result = json.loads(printed)
    assert result["labels"] == ["green heart", "red star é"]
    assert os.fsencode(result["images"][0]["image"]) == os.fsencode(image)
    assert classify.main(arguments) == 0
    assert r"caf\udce9.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{image}", "nothing.jpg", "--labels", "a"], "input 1: nothing.jpg"),
        (["{image}", "--labels", "a", "--top", "0"], "--top: expected an integer of 1 or more, got '0'"),
        (["{image}", "--labels-file", "nowhere.txt"], "nowhere.txt"),
        (["{image}", "--labels", "a", "--precision", "fp8"], "'fp8'"),
        (["{image}", "--labels", "a", "--device", "cuda:7"], "'cuda:7'"),
        (["{image}", "--labels", "a", "--device", "cuda", "--threads", "2"], "--threads"),
        (["{image}", "--labels", "a", "--threads", "0"], "--threads"),
        (["{image}", "--labels", "a", "--template", "no place"], "'no place'"),
        (["{image}"], "--labels"),
    ],
)
def test_classify_says_what_is_wrong(
    tiny_bundle: Path, tiny_checkpoint: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(tiny_checkpoint / "demo" / "green-heart.png")
    assert classify.main([str(tiny_bundle), *(argument.format(image=image) for argument in arguments)]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "name"), [(classify, "align-classify"), (inspect, "align-inspect"), (verify, "align-verify")]
)
def test_a_wrong_call_is_one_line(command: Any, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"{name}: error: the following arguments are required: BUNDLE")
    assert printed.err.endswith(f"; see {name} --help\n")
    assert printed.err.count("\n") == 1
    assert printed.out == ""
