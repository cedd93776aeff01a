"""Zero-shot decisions of align-tiny's FP16 graphs on its held-out set are those of FP32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

import align_runtime
from support.fp16_emulation import run_emulated
from training.captions import LABEL_TEMPLATE, label
from training.evaluate import EVALUATION_SEED, PER_CLASS
from training.folder import read_folder
from training.pools import held_out_digits, held_out_shapes
from training.scenes import COLOURS, DIGITS, SHAPES

MARGIN = 1e-3  # between the two best cosines of FP32; closer decisions may change
LABELS = {
    "shapes": [label(shape, colour) for colour in COLOURS for shape in SHAPES],
    "digits": [label(digit) for digit in DIGITS],
}


@pytest.fixture(scope="module")
def images(tiny_checkpoint: Path) -> dict[str, NDArray[np.uint8]]:
    size = read_folder(tiny_checkpoint)[2]
    return {
        "shapes": held_out_shapes(EVALUATION_SEED, PER_CLASS, size).pixels,
        "digits": held_out_digits(EVALUATION_SEED, 1, size).pixels,
    }


@pytest.mark.parametrize("kind", LABELS)
def test_decisions_are_those_of_fp32(
    tiny_fp16_bundle: Path, images: dict[str, NDArray[np.uint8]], kind: str, tmp_path: Path
) -> None:
    """As ONNX Runtime runs the graphs on a CPU, and with every value rounded to FP16 as on hardware."""
    texts, pixels = [LABEL_TEMPLATE.format(name) for name in LABELS[kind]], images[kind]
    with align_runtime.load(tiny_fp16_bundle) as model:
        exact = held_out_cosines(model, texts, pixels)
        tokenizer = model._parts.texts.tokenizer
        ids, mask = tokenizer.pad(tokenizer.encode(texts))
    with align_runtime.load(tiny_fp16_bundle, precision="fp16") as model:
        half = held_out_cosines(model, texts, pixels)
    graphs = {tower: ir.load(tiny_fp16_bundle / "onnx" / f"{tower}_model_fp16.onnx") for tower in ("vision", "text")}
    image_embeds = run_emulated(graphs["vision"], {"pixels": pixels}, tmp_path, batch=64)
    text_embeds = run_emulated(graphs["text"], {"input_ids": ids, "attention_mask": mask}, tmp_path, batch=64)

    ranked = np.sort(exact, axis=1)
    clear = ranked[:, -1] - ranked[:, -2] >= MARGIN
    assert clear.mean() > 0.98
    for other in (half, image_embeds @ text_embeds.T):
        assert (other.argmax(1) == exact.argmax(1))[clear].all()
        assert np.abs(other - exact).max() > 1e-5  # FP16 was used


def held_out_cosines(model: align_runtime.Model, texts: list[str], pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    parts = [model.embed_pixels(pixels[start : start + 64]) for start in range(0, len(pixels), 64)]
    return model.cosine(np.concatenate(parts), model.embed_texts(texts))
