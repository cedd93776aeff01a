"""Calibration images and captions like the training data of align-tiny; none of its evaluation set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from training.captions import random_caption
from training.scenes import DIGITS, SHAPES, random_scene


def draw_images(folder: Path, count: int, seed: int) -> Path:
    """Writes `drawn_images` into `folder` as PNG files."""
    folder.mkdir(parents=True)
    for index, image in enumerate(drawn_images(count, seed)):
        image.save(folder / f"{index:03}.png")
    return folder


def drawn_images(count: int, seed: int) -> Iterator[Image.Image]:
    """`count` images; a third are handwritten digits of the training set."""
    from training.pools import random_image  # of scikit-learn, which a machine for the GPU check does not have

    generator = np.random.default_rng(seed)
    for index in range(count):
        subjects = SHAPES if index % 3 else DIGITS
        yield random_image(generator, subjects[int(generator.integers(len(subjects)))], "train")[0]


def draw_captions(count: int, seed: int) -> list[str]:
    """`count` captions from the training templates; a third describe digits."""
    generator = np.random.default_rng(seed)
    captions = []
    for index in range(count):
        subjects = SHAPES if index % 3 else DIGITS
        scene = random_scene(generator, subjects[int(generator.integers(len(subjects)))])
        captions.append(random_caption(scene, generator).text)
    return captions
