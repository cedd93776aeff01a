"""align-export as a user calls it: the graphs, the bundle, determinism, atomicity, and what it says when it cannot."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import align_exporter
from align_exporter.command import main
from align_exporter.graph_check import check_file, check_operators
from align_exporter.options import OPSETS
from align_reference.checkpoint import load_model
from align_runtime import BuildError, Bundle
from align_runtime.bundle_paths import REPORT_NAMES
from align_runtime.preprocessing import ImagePreprocessing

ROOMS = [str(path) for path in Path(align_exporter.__file__).parents[2].iterdir() if path.is_dir()]


def export(*arguments: Any) -> int:
    return main([*map(str, arguments), "--quiet"])


def digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


GRAPHS = ("vision_model", "text_model", "text_model_cpu")


def graph(bundle: Path, name: str) -> onnx.ModelProto:
    return onnx.load(bundle / "onnx" / f"{name}.onnx")


# ── what the graphs are ──────────────────────────────────────────────────────────────────────────────────────────────


def test_graph_contract(tiny_bundle: Path) -> None:
    def describe(value: onnx.ValueInfoProto) -> tuple[str, int, list[int | str]]:
        tensor = value.type.tensor_type
        return value.name, tensor.elem_type, [size.dim_param or size.dim_value for size in tensor.shape.dim]

    dim = Bundle.open(tiny_bundle).manifest.model.embedding_dim
    height, width = Bundle.open(tiny_bundle).manifest.preprocessing.output_size
    vision, text, cpu = (graph(tiny_bundle, name).graph for name in GRAPHS)
    kind = onnx.TensorProto
    assert [describe(value) for value in vision.input] == [("pixels", kind.UINT8, ["batch", height, width, 3])]
    assert [describe(value) for value in vision.output] == [("image_embeds", kind.FLOAT, ["batch", dim])]
    assert [describe(value) for value in text.input] == [
        ("input_ids", kind.INT64, ["batch", "sequence"]),
        ("attention_mask", kind.INT64, ["batch", "sequence"]),
    ]
    assert [describe(value) for value in text.output] == [("text_embeds", kind.FLOAT, ["batch", dim])]
    assert (cpu.input, cpu.output) == (text.input, text.output)


def test_graphs_hold_nothing_that_was_to_be_folded(tiny_bundle: Path) -> None:
    operators = Counter(node.op_type for node in graph(tiny_bundle, "vision_model").graph.node)
    for absent in ("BatchNormalization", "Pad", "AveragePool", "ReduceMean", "Identity", "Constant"):
        assert operators[absent] == 0
    assert operators["GlobalAveragePool"] >= 17
    for name in ("text_model", "text_model_cpu"):
        text = graph(tiny_bundle, name).graph
        assert not [tensor.name for tensor in text.initializer if "pooler" in tensor.name]
        assert not {"Tanh", "Expand", "Identity", "Constant"} & {node.op_type for node in text.node}
        lookups = [node for node in text.node if "embeddings/Gather" in node.name]
        assert len(lookups) == 2  # words and positions: the token type is in the positions


def test_every_initializer_is_read(tiny_bundle: Path) -> None:
    for name in GRAPHS:
        model = graph(tiny_bundle, name).graph
        assert {tensor.name for tensor in model.initializer} <= {name for node in model.node for name in node.input}


def test_the_last_text_layer_computes_one_row(tiny_bundle: Path) -> None:
    text = onnx.shape_inference.infer_shapes(graph(tiny_bundle, "text_model"), data_prop=True).graph
    shapes = {value.name: value.type.tensor_type.shape.dim for value in text.value_info}
    softmaxes = [node for node in text.node if node.op_type == "Softmax"]
    assert len(softmaxes) >= 4
    assert shapes[softmaxes[-1].output[0]][2].dim_value == 1
    assert all(shapes[node.output[0]][2].dim_value != 1 for node in softmaxes[:-1])


def test_files_are_no_larger_than_their_weights(tiny_bundle: Path) -> None:
    """Plus 1 % and the description of the nodes, which only matters on a model this small."""
    for name in GRAPHS:
        model = graph(tiny_bundle, name)
        weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
        nodes = len(model.SerializeToString()) - weights
        assert nodes < 0.01 * weights + 300 * (len(model.graph.node) + len(model.graph.initializer))


def test_graphs_say_nothing_of_the_machine(tiny_bundle: Path) -> None:
    for name in GRAPHS:
        content = (tiny_bundle / "onnx" / f"{name}.onnx").read_bytes()
        assert not re.search(rb"site-packages|/home/|\.py\b|Traceback", content)
        assert str(Path.cwd()).encode() not in content


def test_text_graphs_share_one_file_of_weights(tiny_bundle: Path) -> None:
    """Every weight of a kilobyte or more is in it, once: the file is no larger than what one graph refers to."""
    data = "text_model.onnx_data"
    needed = []
    for name in ("text_model", "text_model_cpu"):
        model = onnx.load(tiny_bundle / "onnx" / f"{name}.onnx", load_external_data=False).graph
        external = [tensor for tensor in model.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
        places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in external]
        assert {place["location"] for place in places} == {data}
        assert all(len(tensor.raw_data) < 1024 for tensor in model.initializer)
        needed.append({(int(place["offset"]), int(place["length"])) for place in places})
    assert needed[0] == needed[1]
    assert (tiny_bundle / "onnx" / data).stat().st_size == max(offset + length for offset, length in needed[0])
    graphs = Bundle.open(tiny_bundle).manifest.graphs
    assert [graph.data for graph in graphs] == [None, f"onnx/{data}", f"onnx/{data}"]


@pytest.mark.parametrize("name", ["text_model", "text_model_cpu"])
def test_any_batch_and_length_runs(tiny_bundle: Path, name: str) -> None:
    bundle = Bundle.open(tiny_bundle)
    session = onnxruntime.InferenceSession(bundle.path(f"onnx/{name}.onnx"), providers=["CPUExecutionProvider"])
    for batch in (1, 2, 5):
        for length in (2, 3, bundle.manifest.model.max_length):
            ids = np.full((batch, length), 5, dtype=np.int64)
            (embeds,) = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
            np.testing.assert_allclose(np.linalg.norm(embeds, axis=1), np.ones(batch), atol=1e-5)


# ── options ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("opset", [OPSETS[0], OPSETS[-1]])
def test_opset(small_checkpoint: Path, tmp_path: Path, opset: int) -> None:
    assert export(small_checkpoint, "-o", tmp_path / "bundle", "--opset", opset) == 0
    for name in GRAPHS:
        imports = graph(tmp_path / "bundle", name).opset_import
        assert [(entry.domain, entry.version) for entry in imports] == [("", opset)]


@dataclass(frozen=True)
class Run:
    """An export in a process of its own: where its bundle is and what it printed."""

    bundle: Path
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def runs(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """Two exports of the same checkpoint, the first with ``--json``: hash seeds and addresses differ."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(ROOMS)}
    done = []
    for options in (["--json"], []):
        bundle = tmp_path_factory.mktemp("runs") / "bundle"
        command = [sys.executable, "-m", "align_exporter", str(small_checkpoint), "-o", str(bundle), *options]
        result = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        done.append(Run(bundle, result.stdout, result.stderr))
    return done[0], done[1]


def test_json_is_alone_on_stdout(runs: tuple[Run, Run]) -> None:
    run, _ = runs
    result = json.loads(run.stdout)
    assert run.stderr == ""
    assert result["bundle"] == str(run.bundle)
    for entry in result["graphs"]:
        file = run.bundle / entry["file"]
        assert entry["bytes"] >= file.stat().st_size
        assert entry["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert entry["parity"]["max_abs"] <= entry["limits"]["max_abs"]


def test_progress_names_the_phases_and_the_table_the_result(runs: tuple[Run, Run]) -> None:
    _, run = runs
    for phase in (
        "read small",
        "vision: trace",
        "text: parity with the reference",
        "text for cpu: trace",
        "bundle and self-test",
    ):
        assert f"✓ {phase} (" in run.stderr
    assert all(line.startswith("  ✓ ") for line in run.stderr.splitlines())  # nothing of torch's own chatter
    assert "max abs error" in run.stdout


def test_two_runs_give_the_same_bytes(runs: tuple[Run, Run]) -> None:
    """All files, the manifest with its hashes too, but the report, which tells of one build and its times."""
    first, second = (digest(run.bundle) for run in runs)
    assert len(first) > 10
    differ = {name for name in first | second if first.get(name) != second.get(name)}
    assert differ == set(REPORT_NAMES)


# ── gates ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def break_normalisation(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ImagePreprocessing.scale_and_offset
    monkeypatch.setattr(
        ImagePreprocessing, "scale_and_offset", lambda self: (right(self)[0], right(self)[1] + 1 / 127.5)
    )


def test_a_missed_gate_gives_exit_code_one_and_no_bundle(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    break_normalisation(monkeypatch)
    assert export(small_checkpoint, "-o", tmp_path / "bundle") == 1
    assert "onnx/vision_model.onnx: max_abs is" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_missed_gate_leaves_the_previous_bundle(
    small_checkpoint: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    break_normalisation(monkeypatch)
    assert export(small_checkpoint, "-o", target) == 1
    assert digest(target) == digest(tiny_bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("killer", [signal.SIGKILL, signal.SIGTERM])
def test_killed_at_any_moment_the_previous_bundle_is_intact(
    small_checkpoint: Path, tiny_bundle: Path, tmp_path: Path, killer: signal.Signals
) -> None:
    target = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    before = digest(target)
    command = [sys.executable, "-m", "align_exporter", str(small_checkpoint), "-o", str(target)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(ROOMS)}
    for phase in ("find ", "text: passes"):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        assert process.stderr is not None
        for line in process.stderr:
            if phase in line:
                process.send_signal(killer)
                break
        else:
            pytest.fail(f"the export never reported the phase {phase!r}")
        process.stderr.read()
        code = process.wait()
        assert code == (-9 if killer == signal.SIGKILL else 130)
        assert digest(target) == before
        if killer == signal.SIGTERM:
            assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_operators_of_another_graph_are_an_error(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    import onnx_ir as ir

    from align_exporter.contract import vision_contract

    config = load_model(tiny_checkpoint).config
    contract = vision_contract(config, Bundle.open(tiny_bundle).manifest.preprocessing.output_size, "uint8")
    model = ir.load(tiny_bundle / "onnx" / "vision_model.onnx")
    check_operators(model, contract, config)
    convolution = next(node for node in model.graph if node.op_type == "Conv")
    convolution.op_type = "Pad"
    with pytest.raises(BuildError, match="the vision graph holds .* Conv where .* were expected"):
        check_operators(model, contract, config)


def test_a_graph_that_is_no_valid_onnx_is_an_error(tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    from align_exporter.contract import text_contract

    contract = text_contract(load_model(tiny_checkpoint).config)
    model = graph(tiny_bundle, "text_model")
    model.graph.node[-1].input[0] = "nothing"
    onnx.save(model, tmp_path / "text.onnx")
    with pytest.raises(BuildError, match=r"text\.onnx is not a valid graph"):
        check_file(tmp_path / "text.onnx", contract, 20, None)
    model = graph(tiny_bundle, "text_model")
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value += 1
    onnx.save(model, tmp_path / "text.onnx")
    with pytest.raises(BuildError, match=r"text\.onnx"):
        check_file(tmp_path / "text.onnx", contract, 20, None)
    onnx.save(graph(tiny_bundle, "text_model"), tmp_path / "text.onnx")
    with pytest.raises(BuildError, match="opset is 20, the contract says 21"):
        check_file(tmp_path / "text.onnx", contract, 21, None)


def test_weights_may_lie_only_where_it_was_planned(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    from align_exporter.contract import text_contract

    contract = text_contract(load_model(tiny_checkpoint).config)
    file = tiny_bundle / "onnx" / "text_model.onnx"
    check_file(file, contract, 20, "text_model.onnx_data")
    for planned in (None, "other.onnx_data"):
        with pytest.raises(BuildError, match=r"text_model\.onnx has weights in text_model\.onnx_data; .* was planned"):
            check_file(file, contract, 20, planned)


# ── wrong calls and bad checkpoints ──────────────────────────────────────────────────────────────────────────────────


def copied(checkpoint: Path, target: Path) -> Path:
    return Path(shutil.copytree(checkpoint, target))


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def fails(capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: Any) -> str:
    """What align-export prints for `arguments` when it refuses them: one line, exit code 2, no bundle."""
    assert export(*arguments, "-o", tmp_path / "bundle") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("align-export: error: ")
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "bundle").exists()
    return printed.err


def test_missing_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "neither an existing folder nor a hub id" in fails(capsys, tmp_path, tmp_path / "nowhere")


def test_bad_files(small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refusal(name: str) -> str:
        return fails(capsys, tmp_path, checkpoint)

    checkpoint = copied(small_checkpoint, tmp_path / "checkpoint")
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "model.safetensors" in refusal("truncated")
    shutil.copy(small_checkpoint / "model.safetensors", weights)
    (checkpoint / "config.json").write_text("{]")
    assert "config.json is not valid JSON" in refusal("no JSON")
    shutil.copy(small_checkpoint / "config.json", checkpoint)
    edit(checkpoint / "config.json", model_type="clip")
    assert "model_type is 'clip'" in refusal("type")
    shutil.copy(small_checkpoint / "config.json", checkpoint)
    vision = json.loads((checkpoint / "config.json").read_text())["vision_config"] | {"hidden_act": "snake"}
    edit(checkpoint / "config.json", vision_config=vision)
    assert "hidden_act is 'snake'; known:" in refusal("activation")
    shutil.copy(small_checkpoint / "config.json", checkpoint)
    edit(checkpoint / "preprocessor_config.json", do_solarize=True)
    assert "do_solarize" in refusal("preprocessing")
    shutil.copy(small_checkpoint / "preprocessor_config.json", checkpoint)
    text = json.loads((checkpoint / "config.json").read_text())["text_config"]
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
    extra = f"word{text['vocab_size']}"
    tokenizer["model"]["vocab"][extra] = max(tokenizer["model"]["vocab"].values()) + 1
    (checkpoint / "tokenizer.json").write_text(json.dumps(tokenizer))
    with (checkpoint / "vocab.txt").open("a") as vocabulary:
        vocabulary.write(f"{extra}\n")
    assert str(text["vocab_size"]) in refusal("vocabulary")


def test_untrained_weights_prove_nothing(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    checkpoint = copied(small_checkpoint, tmp_path / "checkpoint")
    weights = load_file(checkpoint / "model.safetensors")
    for name, tensor in weights.items():
        if "project_conv" in name:
            weights[name] = torch.full_like(tensor, 1e-6)
    save_file(weights, checkpoint / "model.safetensors")
    assert export(checkpoint, "-o", tmp_path / "bundle") == 1
    assert "Are these trained weights?" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_output_that_is_no_bundle(small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "photos"
    target.mkdir()
    (target / "cat.jpg").write_text("precious")
    start = time.monotonic()
    assert export(small_checkpoint, "-o", target) == 2
    assert time.monotonic() - start < 5  # said before the work, not after
    assert "exists and is no bundle" in capsys.readouterr().err
    assert [path.name for path in target.iterdir()] == ["cat.jpg"]


def test_output_that_cannot_be_made(small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert export(small_checkpoint, "-o", tmp_path / "file" / "bundle") == 2
    printed = capsys.readouterr().err
    assert printed.startswith("align-export: error: ")
    assert "Not a directory" in printed or "File exists" in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--opset", "25"], ["--pixel-input", "float64"], ["--fp4"]])
def test_unknown_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["checkpoint", "-o", "bundle", *arguments])
    assert caught.value.code == 2
