"""Pools of drawn images, preprocessed for the model: resized, cropped, uint8."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from training.digits import Part, digits
from training.drawing import draw
from training.presets import ImageSize
from training.scenes import COLOURS, DIGITS, SHAPES, Scene, random_scene


@dataclass(frozen=True)
class Pool:
    """Drawn images and their scenes.

    Attributes:
        pixels: uint8 (n, side, side, 3).
        scenes: n scenes.
    """

    pixels: NDArray[np.uint8]
    scenes: tuple[Scene, ...]


def training_pool(seed: int, indices: range, digit_share: float, size: ImageSize, workers: int) -> Pool:
    """Images of random scenes, one per index; training digits only. The result does not depend on `workers`."""
    image = partial(_training_image, seed, digit_share, size)
    if workers > 1:
        with get_context("spawn").Pool(workers) as processes:
            drawn = processes.map(image, indices, chunksize=256)
    else:
        drawn = [image(index) for index in indices]
    return Pool(np.stack([pixels for pixels, _ in drawn]), tuple(scene for _, scene in drawn))


def held_out_shapes(seed: int, per_class: int, size: ImageSize) -> Pool:
    """`per_class` images of each class, a colour and a shape: `len(COLOURS) * len(SHAPES)` classes in that order."""
    rng = np.random.default_rng([seed, 0])
    scenes = [random_scene(rng, shape, colour) for colour in COLOURS for shape in SHAPES for _ in range(per_class)]
    return _pool(scenes, [_prepared(draw(scene, rng), size) for scene in scenes])


def held_out_digits(seed: int, renderings: int, size: ImageSize) -> Pool:
    """All digits of the test part in the order of the dataset, drawn `renderings` times in scenes of their own."""
    rng = np.random.default_rng([seed, 1])
    test = digits("test")
    scenes, images = [], []
    for _ in range(renderings):
        drawn = [random_scene(rng, DIGITS[value]) for value in test.values]
        images += [draw(scene, rng, strokes) for scene, strokes in zip(drawn, test.strokes, strict=True)]
        scenes += drawn
    return _pool(scenes, [_prepared(image, size) for image in images])


def random_image(rng: np.random.Generator, subject: str, part: Part) -> tuple[Image.Image, Scene]:
    """An image of `subject` before preprocessing; the handwriting of a digit comes from `part`."""
    scene = random_scene(rng, subject)
    if not scene.is_digit:
        return draw(scene, rng), scene
    source = digits(part)
    rows = np.flatnonzero(source.values == DIGITS.index(subject))
    return draw(scene, rng, source.strokes[rng.choice(rows)]), scene


def prepare(image: Image.Image, size: ImageSize) -> Image.Image:
    """`image` (RGB) resized, aspect ratio not kept, then centre cropped, as ``preprocessor_config.json`` says."""
    resized = image.resize((size.resize, size.resize), resample=Image.Resampling.BILINEAR)
    edge = (size.resize - size.crop) // 2
    return resized.crop((edge, edge, edge + size.crop, edge + size.crop))


def pixel_values(pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 (n, H, W, 3) as float (n, 3, H, W) in −1 … 1, in channels-last memory order."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def batches(pixels: NDArray[np.uint8], size: int) -> Iterator[Tensor]:
    """`pixel_values` of `size` images at a time, in order."""
    for start in range(0, len(pixels), size):
        yield pixel_values(pixels[start : start + size])


def _training_image(seed: int, digit_share: float, size: ImageSize, index: int) -> tuple[NDArray[np.uint8], Scene]:
    rng = np.random.default_rng([seed, index])
    subjects = DIGITS if rng.random() < digit_share else SHAPES
    image, scene = random_image(rng, subjects[int(rng.integers(len(subjects)))], "train")
    return _prepared(image, size), scene


def _prepared(image: Image.Image, size: ImageSize) -> NDArray[np.uint8]:
    return np.asarray(prepare(image, size))


def _pool(scenes: Sequence[Scene], pixels: Sequence[NDArray[np.uint8]]) -> Pool:
    return Pool(np.stack(pixels), tuple(scenes))
