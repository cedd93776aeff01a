"""Pictures of the kind that align-tiny was trained on, for the calibration of INT8: not those of its evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.pools import random_picture
from training.scenes import DIGITS, SHAPES


def draw_pictures(folder: Path, count: int, seed: int) -> Path:
    """Writes `count` PNG files into `folder`, a third of them handwriting from the training part of the digits."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for index in range(count):
        subjects = SHAPES if index % 3 else DIGITS
        picture, _ = random_picture(generator, subjects[int(generator.integers(len(subjects)))], "train")
        picture.save(folder / f"{index:03}.png")
    return folder
