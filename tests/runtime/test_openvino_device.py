"""device="openvino": what it computes has a name, agrees with the reference, and falls back to nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import align_runtime
from align_bench.plan import Plan
from align_runtime.backends import open_runner, openvino
from align_runtime.bundle import Bundle
from align_runtime.commands import verify
from align_runtime.devices import resolve_device
from align_runtime.errors import BackendUnavailableError, BundleError, ConfigurationError
from align_runtime.golden import Golden
from align_runtime.graph_entry import TOWERS
from align_runtime.parity import WIDEST, compare
from align_runtime.selftest import check_graph
from support.openvino_plugin import plugin_or_skip

FORK = """
import os, sys
import align_runtime
model = align_runtime.load(sys.argv[1], device="openvino")
model.embed_texts(["a cat"])
child = os.fork()
if child:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
try:
    model.embed_texts(["a cat"])
except align_runtime.ConfigurationError:
    sys.exit(7)
"""


@pytest.fixture
def plugin() -> None:
    plugin_or_skip()


@pytest.fixture
def bf16(plugin: None) -> None:
    if openvino.BF16 not in openvino._cpu(onnxruntime).ep_metadata[openvino.CAPABILITIES].split():
        pytest.skip("this processor has no bfloat16")


@pytest.fixture
def without_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", None)


@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("mmap", [True, False])
def test_fp32_is_computed_in_float32(
    plugin: None, tiny_bundle: Path, answers: Golden, streams: int, mmap: bool
) -> None:
    with align_runtime.load(tiny_bundle, device="openvino", streams=streams, mmap=mmap) as model:
        assert (model.info.device, model.info.precision, model.info.streams) == ("openvino", "fp32", streams)
        found = {"vision": model.embed_pixels(answers.pixels), "text": model.embed_texts(list(answers.texts))}
    for tower, embeds in found.items():
        wanted = answers.image_embeds if tower == "vision" else answers.text_embeds
        np.testing.assert_allclose(embeds, wanted, rtol=0, atol=2e-6)


def test_bf16_is_computed_in_bfloat16(bf16: None, tiny_bundle: Path, answers: Golden) -> None:
    """Within its limits, and outside of those that float32 keeps."""
    with align_runtime.load(tiny_bundle, device="openvino", precision="bf16") as model:
        assert model.info.precision == "bf16"
        found = {"vision": model.embed_pixels(answers.pixels), "text": model.embed_texts(list(answers.texts))}
    for tower, embeds in found.items():
        wanted = answers.image_embeds if tower == "vision" else answers.text_embeds
        parity = compare(embeds, wanted, [str(row) for row in range(len(wanted))])
        parity.check(tower, WIDEST["bf16"])
        assert parity.max_abs > 10 * WIDEST["fp32"].max_abs


def test_many_callers_get_their_own_rows(plugin: None, tiny_bundle: Path, answers: Golden) -> None:
    with align_runtime.load(tiny_bundle, device="openvino", threads=2) as model, ThreadPoolExecutor(8) as pool:
        rows = [row % len(answers.pixels) for row in range(96)]
        found = pool.map(lambda row: model.embed_pixels(answers.pixels[row : row + 1 + row % 3]), rows)
        for row, embeds in zip(rows, found, strict=True):
            np.testing.assert_allclose(embeds, answers.image_embeds[row : row + 1 + row % 3], rtol=0, atol=2e-6)


def test_verify_checks_both_precisions(bf16: None, tiny_int8_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(tiny_int8_bundle), "--quiet", "--device", "openvino"]) == 0
    printed = capsys.readouterr().out
    checked = [line.split()[:2] for line in printed.splitlines() if line.endswith(" ok")]
    assert checked == [["vision", "fp32"], ["text", "fp32"], ["text", "fp32"], ["vision", "bf16"], ["text", "bf16"]]
    assert "bfloat16 100 %" in printed
    assert "onnx/vision_model_int8_cpu.onnx: openvino does not run int8 graphs; use --device cpu" in printed
    assert "onnx/vision_model_int8.onnx: it is made for GPUs, not for openvino; use --device cpu" in printed
    assert verify.main([str(tiny_int8_bundle), "--quiet", "--device", "openvino", "--precision", "bf16"]) == 0
    assert "2 of 9 graphs checked on openvino: passed" in capsys.readouterr().out


def test_other_embeddings_fail(bf16: None, tiny_bundle: Path, answers: Golden) -> None:
    """The smallest difference that the limits of bf16 must notice: one image in the place of another."""
    bundle = Bundle.open(tiny_bundle)
    swapped = replace(answers, image_embeds=answers.image_embeds[[1, 0, *range(2, len(answers.image_embeds))]])
    graph = bundle.graph("vision", "bf16", "openvino")
    assert not check_graph(bundle, graph, answers, "openvino", None).failures
    assert "max_abs is" in " ".join(check_graph(bundle, graph, swapped, "openvino", None).failures)


def test_an_operator_that_openvino_lacks_is_an_error(plugin: None, tmp_path: Path) -> None:
    """The CPU provider of ONNX Runtime, which has it, is not asked."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2, 2]) for name in "xy"]
    ends[1].type.tensor_type.shape.ClearField("dim")
    ends[1].type.tensor_type.shape.dim.add().dim_param = "n"
    graph = helper.make_graph([helper.make_node("Det", ["x"], ["y"])], "graph", ends[:1], ends[1:])
    file = tmp_path / "graph.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), file)
    open_runner(file, "cpu", None).close()
    with pytest.raises(BundleError, match="CPU EP|fallback|fall back"):
        open_runner(file, "openvino", None)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_graphs_are_refused(tiny_int8_bundle: Path, precision: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'{precision}' .* on openvino; it has: fp32, bf16$"):
        align_runtime.load(tiny_int8_bundle, device="openvino", precision=precision)


def test_bf16_elsewhere_names_the_device(tiny_bundle: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"'bf16' .* on cpu; .*; bf16 is computed by device='openvino'$"):
        align_runtime.load(tiny_bundle, precision="bf16")


def test_a_missing_plugin_is_an_error(tiny_bundle: Path, without_plugin: None) -> None:
    with pytest.raises(BackendUnavailableError, match=r"install it with: pip install -U 'align-onnx\[openvino\]'$"):
        align_runtime.load(tiny_bundle, device="openvino")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A plugin of another name, whose library does not load."""
    (tmp_path / "plugin.so").write_bytes(b"no library")
    names = SimpleNamespace(get_ep_name=lambda: "Broken", get_library_path=lambda: str(tmp_path / "plugin.so"))
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", names)
    return names


def test_a_plugin_that_does_not_load_is_an_error(tiny_bundle: Path, broken: SimpleNamespace) -> None:
    with pytest.raises(BackendUnavailableError, match=r"cannot load OpenVINO's provider .*align-onnx\[openvino\]'$"):
        align_runtime.load(tiny_bundle, device="openvino")


def test_a_processor_without_bfloat16_is_an_error(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimpleNamespace(ep_metadata={openvino.CAPABILITIES: "FP32 INT8"})
    monkeypatch.setattr(openvino, "_cpu", lambda onnxruntime: device)
    with pytest.raises(BackendUnavailableError, match="has no bfloat16 .*; load with precision='fp32'"):
        align_runtime.load(tiny_bundle, device="openvino", precision="bf16")


def test_a_processor_that_it_does_not_take_is_an_error_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime refuses to load a library twice, which would hide the reason at the second call."""
    loaded: list[str] = []
    names = SimpleNamespace(get_ep_name=lambda: "Absent", get_library_path=lambda: "absent.so")
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", names)
    monkeypatch.setattr(openvino, "_registered", set())
    double = SimpleNamespace(
        get_ep_devices=list, register_execution_provider_library=lambda name, path: loaded.append(path)
    )
    for _ in range(2):
        with pytest.raises(
            BackendUnavailableError, match="takes no processor of this machine .*; load with device='cpu'"
        ):
            openvino._cpu(double)
    assert loaded == ["absent.so"]


def test_auto_does_not_take_it(plugin: None) -> None:
    assert resolve_device("auto") != "openvino"


def test_the_benchmark_measures_both_precisions(tiny_int8_bundle: Path) -> None:
    plan = Plan(devices=("cpu", "openvino"))
    bundle = Bundle.open(tiny_int8_bundle)
    assert plan.variants(bundle, "openvino") == ("fp32", "bf16")
    assert {case.tower for case in plan.cases("bf16", "openvino")} == set(TOWERS)


def test_a_forked_child_ends(plugin: None, tiny_bundle: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORK, str(tiny_bundle)], timeout=120, check=False)
    assert done.returncode == 7
