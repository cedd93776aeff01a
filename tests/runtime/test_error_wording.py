"""The wording of one message of each class, and the rules for all: one line, not longer than a terminal can take.

Other tests look at type and attributes, so that a message can be improved here and in its place alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from align_exporter.graph.content import content_of
from align_reference.files import find_weights
from align_runtime import errors, golden
from align_runtime.backends.onnxruntime import OnnxRuntimeRunner
from align_runtime.errors import MAX_MESSAGE, AlignError, BundleError, DeviceError, InputError, ParityError
from align_runtime.images import preprocess
from align_runtime.parity import Limits, compare
from align_runtime.precision import GraphContent, check_precision
from align_runtime.preprocessing import ImagePreprocessing
from support import onnx_models


def configuration(folder: Path) -> None:
    GraphContent.from_json({"macs": {"float32": -1}, "weights": {}}, "align.json: content")


def checkpoint(folder: Path) -> None:
    find_weights(folder)


def wrong_input(folder: Path) -> None:
    preprocess([folder / "cat.jpg"], ImagePreprocessing.from_hub({}, "preprocessor_config.json"))


def bundle(folder: Path) -> None:
    np.save(folder / "pixels.npy", np.zeros((2, 3), np.uint8))
    golden.read_array(folder / "pixels.npy", np.dtype(np.uint8), 4)


def unavailable(folder: Path) -> None:
    OnnxRuntimeRunner(folder / "model.onnx", None)


def device(folder: Path) -> None:
    raise DeviceError("CUDA cannot allocate 2 GiB: out of memory")  # the real ones need a GPU, or its double


def build(folder: Path) -> None:
    made = onnx_models.half_model()
    del made.graph.value_info[:]
    content_of(ir.from_proto(made), 7)


def precision(folder: Path) -> None:
    check_precision("onnx/text_model_fp16.onnx", "fp16", GraphContent({"float16": 31, "float32": 969}, {}))


def parity(folder: Path) -> None:
    compared = compare(np.full((1, 4), 0.5), np.array([[1.0, 0.0, 0.0, 0.0]]), ["cat.jpg"])
    compared.check("onnx/vision_model.onnx", Limits(max_abs=1e-3, min_cosine=0.999, min_centred_cosine=0.999))


WORDING = {
    "ConfigurationError": (
        configuration,
        "align.json: content: macs: float32 is -1; expected 0 to 9223372036854775807",
    ),
    "CheckpointError": (
        checkpoint,
        "FOLDER has no weights; expected one of model.safetensors, model.safetensors.index.json, pytorch_model.bin, "
        "pytorch_model.bin.index.json (to measure "
        "latency without a checkpoint: align-export --random-weights SEED)",
    ),
    "InputError": (wrong_input, "input 0: FOLDER/cat.jpg does not exist"),
    "BundleError": (
        bundle,
        "FOLDER/pixels.npy: expected a C-contiguous |u1 array of 4 dimensions, got |u1 of shape (2, 3) in 6 bytes",
    ),
    "BackendUnavailableError": (
        unavailable,
        "onnxruntime cannot be imported (import of onnxruntime halted; None in sys.modules); install it with: "
        "pip install -U 'align-onnx[cpu]'",
    ),
    "DeviceError": (device, "CUDA cannot allocate 2 GiB: out of memory"),
    "BuildError": (build, "the graph 'graph' cannot be counted: the type of 'x' is missing"),
    "PrecisionError": (
        precision,
        "onnx/text_model_fp16.onnx is labelled fp16, but only 3.1 % of its MACs are in float16; at least 50 % must be. "
        "Export it again under the precision that it computes in",
    ),
    "ParityError": (
        parity,
        "onnx/vision_model.onnx: max_abs is 0.5, allowed 0.001 (worst sample: cat.jpg); the graph differs from the "
        "reference by more than allowed",
    ),
}


def test_every_class_is_here() -> None:
    classes = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, AlignError)}
    assert classes == {"AlignError", *WORDING}


@pytest.mark.parametrize("name", WORDING)
def test_wording(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as where it is not installed
    fails, message = WORDING[name]
    with pytest.raises(AlignError) as caught:
        fails(tmp_path)
    assert type(caught.value).__name__ == name
    assert str(caught.value).replace(str(tmp_path), "FOLDER") == message


# ── the rules for all ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("length", [MAX_MESSAGE, MAX_MESSAGE + 1, 100_000])
def test_a_long_message_is_cut_in_the_middle(length: int) -> None:
    """What happened is at its beginning, the fix at its end."""
    message = str(BundleError(f"damaged: {'x' * (length - 28)}; copy it again now"))
    assert len(message) == MAX_MESSAGE
    assert message.startswith("damaged: xxx")
    assert message.endswith("xxx; copy it again now")
    assert message.count("…") == (length > MAX_MESSAGE)


def test_a_message_is_one_line() -> None:
    assert str(BundleError("of another library:\r\n  bad\nworse\u2028")) == "of another library:   bad worse"


def test_attributes_stay_whole() -> None:
    text = "x" * 1000
    wrong = InputError(text, 3)
    assert (wrong.message, wrong.index, len(str(wrong))) == (text, 3, MAX_MESSAGE)
    assert wrong.at(7).index == 7
    assert str(wrong.at(7)).startswith("input 7: xxx")
    far = ParityError("graph.onnx", "max_abs", 0.1, 0.2, text, "advice")
    assert (far.sample, len(str(far))) == (text, MAX_MESSAGE)
    assert str(far.advised("leave it out")).endswith("; leave it out")


def test_an_error_without_a_message() -> None:
    assert str(BundleError()) == ""
