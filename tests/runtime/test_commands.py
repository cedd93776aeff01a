"""align-verify and align-classify as a user calls them: output, JSON, exit codes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from align_runtime.bundle import inventory
from align_runtime.commands import classify, inspect, verify


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
    for word in ("vision", "fp32", "any", "cpu", "float32 100 %", "max abs", "min cosine", "all checks passed"):
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
    """Changes the first graph's entry; the manifest itself has no hash that could tell."""
    file = bundle / "align.json"
    values = json.loads(file.read_text())
    change(values["graphs"][0])
    file.write_text(json.dumps(values))


def failures_of(bundle: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What align-verify says of the first graph, which alone fails."""
    assert verify.main([str(bundle), "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert [check["ok"] for check in result["checks"]] == [False, True, True]
    assert not result["ok"]
    return result["failures"]


def test_verify_notices_fp32_that_is_called_fp16(bundle_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Name and counts are forged alike, so that only the file itself tells."""

    def forge(graph: dict[str, Any]) -> None:
        graph.update(variant="fp16")
        graph["content"] = {kind: {"float16": counts["float32"]} for kind, counts in graph["content"].items()}

    change_manifest(bundle_copy, forge)
    macs, weights, rule = failures_of(bundle_copy, capsys)
    assert macs.startswith("onnx/vision_model.onnx has macs {'float32': ")
    assert "the manifest says {'float16': " in macs
    assert weights.startswith("onnx/vision_model.onnx has weights {'float32': ")
    assert rule.startswith("onnx/vision_model.onnx calls itself fp16 but computes 0 % of its MACs in float16; ")
    assert verify.main([str(bundle_copy), "--quiet"]) == 1
    printed = capsys.readouterr().out
    assert printed.count("FAILED: onnx/vision_model.onnx") == 3
    assert [line.endswith("FAILED") for line in printed.splitlines() if line.startswith(("vision", "text"))] == [
        True,
        False,
        False,
    ]


def test_verify_notices_a_false_name_alone(bundle_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_manifest(bundle_copy, lambda graph: graph.update(variant="fp16"))
    (failure,) = failures_of(bundle_copy, capsys)
    assert failure.startswith("onnx/vision_model.onnx calls itself fp16")


@pytest.mark.parametrize("kind", ["macs", "weights"])
def test_verify_notices_a_count_of_one_more(bundle_copy: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    def count(graph: dict[str, Any]) -> None:
        graph["content"][kind]["float32"] += 1

    change_manifest(bundle_copy, count)
    (failure,) = failures_of(bundle_copy, capsys)
    assert failure.startswith(f"onnx/vision_model.onnx has {kind} ")


def test_verify_notices_weights_stored_in_another_type(bundle_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As FP16 and cast back: the same arithmetic, within limits that were forged to allow it."""
    file = bundle_copy / "onnx" / "vision_model.onnx"
    model = onnx.load(file)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("project_conv.weight"))
    name, values = weight.name, onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), "half"))
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["half"], [name], to=onnx.TensorProto.FLOAT))
    model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, values.shape))
    onnx.save(model, file)
    reseal(bundle_copy)
    change_manifest(bundle_copy, lambda graph: graph["limits"].update(max_abs=1.0))
    (failure,) = failures_of(bundle_copy, capsys)
    assert f"has weights {{'float16': {values.size}, 'float32': " in failure


def test_verify_of_a_graph_that_cannot_be_counted(bundle_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = bundle_copy / "onnx" / "vision_model.onnx"
    model = onnx.load(file)
    del model.graph.value_info[:]
    onnx.save(model, file)
    reseal(bundle_copy)
    assert verify.main([str(bundle_copy), "--quiet"]) == 2
    assert "vision_model.onnx cannot be checked: the type of " in capsys.readouterr().err


def test_verify_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("align-verify: error: ")


def test_inspect_prints_the_essence(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([str(tiny_bundle)]) == 0
    printed = capsys.readouterr().out
    for word in ("align-tiny", "onnx/text_model.onnx", "fp32", "opset=20", "torch 2", "images 65×65"):
        assert word in printed
    counts = printed[printed.index("MACs of one") :].splitlines()
    assert [line.count("float32 100 %") for line in counts[2:]] == [2, 2, 2]


def test_inspect_as_json(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([str(tiny_bundle), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    for graph in result["graphs"]:
        files = [graph["file"]] + ([graph["data"]] if graph["data"] else [])
        assert graph["bytes"] == sum((tiny_bundle / file).stat().st_size for file in files)
        assert sum(graph["content"]["macs"].values()) > sum(graph["content"]["weights"].values()) > 0
    assert result["provenance"]["options"]["pixel_input"] == "uint8"


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
        (["nothing.jpg", "--labels", "a"], "input 0: nothing.jpg"),
        (["nothing.jpg", "--labels", "a", "--top", "0"], "--top is 0; 1 or more is needed"),
        (["nothing.jpg", "--labels-file", "nowhere.txt"], "the labels in nowhere.txt cannot be read"),
        (["nothing.jpg", "--labels", "a", "--precision", "fp8"], "precision 'fp8' is not in the bundle"),
        (["nothing.jpg", "--labels", "a", "--device", "cuda:7"], "device is 'cuda:7'"),
    ],
)
def test_classify_says_what_is_wrong(
    tiny_bundle: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify.main([str(tiny_bundle), *arguments]) == 2
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
