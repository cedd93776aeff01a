"""Draws scenes: a background, and the mask of the subject filled with its colour."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.digits import digit_mask
from training.scenes import BACKGROUND_COLOURS, COLOURS, Scene
from training.shapes import shape_mask

MIN_SIDE, MAX_SIDE = 80, 160  # pixels; ordinary images are not square
MAX_ASPECT = 1.35
MAX_TURN = 14.0  # degrees, in both directions

# Shares of the image. The centre crop removes about 7 % on each side, where no subject may be.
DIAMETERS = {"small": (0.26, 0.34), "large": (0.5, 0.6)}  # of the shorter side
DIGIT_DIAMETERS = {"small": (0.32, 0.4), "large": (0.48, 0.58)}  # strokes are thinner than shapes
OFFSETS = {"small": (0.19, 0.25), "large": (0.13, 0.17)}  # from the centre to the named side
WOBBLE = 0.04
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1), "centre": (0, 0)}

COLOUR_JITTER = 16.0
NOISE = (14.0, 26.0)  # standard deviation of a noisy background, in grey levels


def draw(scene: Scene, rng: np.random.Generator, strokes: NDArray[np.uint8] | None = None) -> Image.Image:
    """An image of `scene`, RGB, of random size and aspect ratio.

    Args:
        scene: what to draw.
        rng: draws everything that the scene does not fix.
        strokes: uint8 (8, 8), the handwriting; required if the subject is a digit.
    """
    width, height = _image_size(rng)
    background = _background(scene, rng, width, height)
    mask, corner = _subject(scene, rng, width, height, strokes)
    coverage = Image.new("L", (width, height), 0)
    coverage.paste(mask, corner)
    ink = _jittered(rng, COLOURS[scene.colour])
    alpha = np.asarray(coverage, dtype=np.float64)[..., None] / 255  # (H, W, 1)
    blended = background * (1 - alpha) + ink * alpha
    return Image.fromarray(np.rint(np.clip(blended, 0, 255)).astype(np.uint8))


def _image_size(rng: np.random.Generator) -> tuple[int, int]:
    side = rng.uniform(MIN_SIDE, MAX_SIDE)
    aspect = np.exp(rng.uniform(-np.log(MAX_ASPECT), np.log(MAX_ASPECT)))
    width, height = side * np.sqrt(aspect), side / np.sqrt(aspect)
    return round(float(width)), round(float(height))


def _subject(
    scene: Scene, rng: np.random.Generator, width: int, height: int, strokes: NDArray[np.uint8] | None
) -> tuple[Image.Image, tuple[int, int]]:
    """The mask of the subject and the position of its upper left corner."""
    diameters = DIGIT_DIAMETERS if scene.is_digit else DIAMETERS
    diameter = round(rng.uniform(*diameters[scene.size]) * min(width, height))
    rotation = rng.uniform(-MAX_TURN, MAX_TURN)
    if scene.is_digit:
        if strokes is None:
            raise ValueError(f"{scene} shows a digit; its strokes are missing")
        mask = digit_mask(strokes, diameter, rotation)
    else:
        mask = shape_mask(scene.subject, diameter, rotation)
    offset = rng.uniform(*OFFSETS[scene.size])
    toward_x, toward_y = DIRECTIONS[scene.position]
    x = width * (0.5 + toward_x * offset + rng.uniform(-WOBBLE, WOBBLE))
    y = height * (0.5 + toward_y * offset + rng.uniform(-WOBBLE, WOBBLE))
    return mask, (round(float(x) - diameter / 2), round(float(y) - diameter / 2))


def _background(scene: Scene, rng: np.random.Generator, width: int, height: int) -> NDArray[np.float64]:
    """Float (H, W, 3), grey levels of about 0 to 255; noise may exceed this range."""
    base = _jittered(rng, BACKGROUND_COLOURS[scene.background])
    if scene.texture == "plain":
        return np.broadcast_to(base, (height, width, 3))
    if scene.texture == "noisy":
        return base + rng.normal(0, rng.uniform(*NOISE), (height, width, 3))
    turn = rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[0:height, 0:width]
    along = columns * np.cos(turn) + rows * np.sin(turn)  # pixels along the direction of change
    if scene.texture == "shaded":
        share = (along - along.min()) / (along.max() - along.min())
    else:
        period = rng.uniform(0.14, 0.22) * min(width, height)
        share = 0.5 + 0.5 * np.clip(3 * np.sin(2 * np.pi * along / period), -1, 1)  # soft edges, no aliasing
    return base + share[..., None] * (_shade(base) - base)


def _shade(base: NDArray[np.float64]) -> NDArray[np.float64]:
    """A second tone of the same colour: darker, or lighter if the colour is dark."""
    return base + 0.3 * (255 - base) if base.mean() < 90 else 0.68 * base


def _jittered(rng: np.random.Generator, rgb: tuple[int, int, int]) -> NDArray[np.float64]:
    return np.clip(np.asarray(rgb, dtype=np.float64) + rng.uniform(-COLOUR_JITTER, COLOUR_JITTER, 3), 0, 255)
