"""Images and captions of the kind that align-tiny was trained on, to calibrate INT8 on: not its evaluation's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.captions import random_caption
from training.pools import random_image
from training.scenes import DIGITS, SHAPES, random_scene


def draw_images(folder: Path, count: int, seed: int) -> Path:
    """Writes `count` PNG files into `folder`, a third of them handwriting from the training part of the digits."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for index in range(count):
        subjects = SHAPES if index % 3 else DIGITS
        image, _ = random_image(generator, subjects[int(generator.integers(len(subjects)))], "train")
        image.save(folder / f"{index:03}.png")
    return folder


def draw_captions(count: int, seed: int) -> list[str]:
    """`count` captions from the templates of the training, a third of them of digits."""
    generator = np.random.default_rng(seed)
    captions = []
    for index in range(count):
        subjects = SHAPES if index % 3 else DIGITS
        scene = random_scene(generator, subjects[int(generator.integers(len(subjects)))])
        captions.append(random_caption(scene, generator).text)
    return captions
