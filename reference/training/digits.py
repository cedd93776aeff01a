"""Handwritten digits from scikit-learn (UCI optical digits, 1,797 images of 8×8), with a fixed split."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

SPLIT_SEED = 20240229  # the same for all presets and runs, so that the test part is never trained on
TEST_PER_DIGIT = 45  # of 174 to 183

Part = Literal["train", "test"]


@dataclass(frozen=True)
class Digits:
    """One part of the dataset.

    Attributes:
        strokes: uint8 (n, 8, 8), 0 is paper and 255 full ink.
        values: int64 (n,), 0 to 9.
        source: int64 (n,), their rows in scikit-learn's dataset.
    """

    strokes: NDArray[np.uint8]
    values: NDArray[np.int64]
    source: NDArray[np.int64]


@cache
def digits(part: Part) -> Digits:
    """The "train" or the "test" part. Test: 45 images of each digit, chosen by `SPLIT_SEED`."""
    bunch = load_digits()
    values = np.asarray(bunch.target, dtype=np.int64)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(values))
    test = np.concatenate([order[values[order] == digit][:TEST_PER_DIGIT] for digit in range(10)])
    rows = np.sort(test if part == "test" else np.setdiff1d(order, test))
    strokes = np.rint(np.asarray(bunch.images)[rows] * (255 / 16)).astype(np.uint8)
    return Digits(strokes=strokes, values=values[rows], source=rows)


def digit_mask(strokes: NDArray[np.uint8], diameter: int, rotation: float) -> Image.Image:
    """Coverage mask (mode "L") of one digit, uint8 (8, 8), enlarged to `diameter` pixels and rotated by degrees."""
    inner = max(8, round(0.92 * diameter))
    glyph = Image.fromarray(strokes).resize((inner, inner), resample=Image.Resampling.BICUBIC)
    mask = Image.new("L", (diameter, diameter), 0)
    mask.paste(glyph, ((diameter - inner) // 2, (diameter - inner) // 2))
    return mask.rotate(rotation, resample=Image.Resampling.BILINEAR)
