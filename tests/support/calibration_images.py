"""Calibration images and captions like the training data of align-tiny; none of its evaluation set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.captions import random_caption
from training.scenes import DIGITS, SHAPES, random_scene


def draw_images(folder: Path, count: int, seed: int) -> Path:
    """Writes `count` PNG files into `folder`; a third are handwritten digits of the training set."""
    from training.pools import random_image  # of scikit-learn, which a machine for the GPU check does not have

    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for index in range(count):
        subjects = SHAPES if index % 3 else DIGITS
        image, _ = random_image(generator, subjects[int(generator.integers(len(subjects)))], "train")
        image.save(folder / f"{index:03}.png")
    return folder


def draw_captions(count: int, seed: int) -> list[str]:
    """`count` captions from the training templates; a third describe digits."""
    generator = np.random.default_rng(seed)
    captions = []
    for index in range(count):
        subjects = SHAPES if index % 3 else DIGITS
        scene = random_scene(generator, subjects[int(generator.integers(len(subjects)))])
        captions.append(random_caption(scene, generator).text)
    return captions
