"""Zero-shot decisions and retrieval of align-tiny's INT8 graphs on its held-out set: nearly those of FP32."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import align_runtime
from support.decisions import HeldOut, agreement
from training.folder import read_folder


@pytest.fixture(scope="module")
def held_out(tiny_checkpoint: Path) -> HeldOut:
    return HeldOut.draw(read_folder(tiny_checkpoint)[2])


@pytest.fixture(scope="module")
def answers(tiny_int8_bundle: Path, held_out: HeldOut) -> dict[str, dict[str, float]]:
    """Decisions of the graphs of each precision, in per cent."""
    found = {}
    for precision in ("fp32", "int8"):
        with align_runtime.load(tiny_int8_bundle, precision=precision) as model:
            pictures, words = held_out.pictures(model.embed_pixels), held_out.words(model.embed_text)
            found[precision] = held_out.decide(pictures, words)
    return found


def test_top1_falls_by_half_a_point_at_most_and_recall_by_one(answers: dict[str, dict[str, float]]) -> None:
    exact, quantized = answers["fp32"], answers["int8"]
    assert exact["shapes"] > 97
    assert exact["digits"] > 91
    assert quantized["shapes"] >= exact["shapes"] - 0.5
    assert quantized["digits"] >= exact["digits"] - 0.5
    assert quantized["recall"] >= exact["recall"] - 1
    assert quantized != exact  # it was INT8


def test_decisions_are_those_of_the_evaluation_after_training(
    answers: dict[str, dict[str, float]], tiny_checkpoint: Path, held_out: HeldOut
) -> None:
    committed = json.loads((tiny_checkpoint / "evaluation.json").read_text())
    exact = answers["fp32"]
    # A decision or two may turn with the last digits.
    assert exact["shapes"] == pytest.approx(100 * committed["shapes"]["top1"], abs=0.2)
    assert exact["digits"] == pytest.approx(100 * committed["digits"]["top1"], abs=0.2)
    assert exact["recall"] == pytest.approx(100 * committed["text_to_image_recall_at_1"], abs=0.2)
    assert len(held_out.retrieved) == committed["retrieval_pictures"]


def test_embeddings_of_other_pictures_decide_wrongly(held_out: HeldOut) -> None:
    """One-hot embeddings: all right as they are, all wrong when every picture has its neighbour's."""
    kinds = ("shapes", "digits")
    sizes = {kind: len(held_out.texts[kind]) for kind in kinds}
    words = {kind: np.eye(size, dtype=np.float32) for kind, size in sizes.items()}
    truth = {kind: held_out.truth(kind) for kind in kinds}
    for shift, expected in ((0, 100), (1, 0)):
        pictures = {kind: words[kind][(truth[kind] + shift) % sizes[kind]] for kind in kinds}
        assert [held_out.top1(kind, pictures[kind], words[kind]) for kind in kinds] == [expected, expected]


def test_recall_counts_the_captions_that_find_their_picture(held_out: HeldOut) -> None:
    count = len(held_out.retrieved)
    pictures = np.eye(count, dtype=np.float32)
    assert held_out.recall(pictures, pictures) == 100
    assert held_out.recall(pictures, np.roll(pictures, 1, axis=0)) == 0
    half = np.where(np.arange(count)[:, None] % 2, pictures, 0)  # nothing: the first picture wins
    assert held_out.recall(half, pictures) == pytest.approx(50, abs=0.2)


def test_a_row_without_direction_agrees_with_nothing() -> None:
    reference = rows([1, 0], [0, 1], [1, 1], [1, 0])
    assert agreement(rows([2, 0], [0, 1], [1, 1], [1, 0]), reference) == pytest.approx(
        {"mean_cosine": 1, "p5_cosine": 1, "min_cosine": 1, "undefined_rows": 0}
    )
    found = agreement(rows([0, 0], [np.nan, 1], [1, 1], [-1, 0]), reference)
    assert found["undefined_rows"] == 2
    assert found["min_cosine"] == pytest.approx(-1)
    assert found["mean_cosine"] == pytest.approx(0)


def rows(*values: list[float]) -> dict[str, NDArray[np.float32]]:
    return {"shapes": np.array(values[:2], dtype=np.float32), "digits": np.array(values[2:], dtype=np.float32)}
