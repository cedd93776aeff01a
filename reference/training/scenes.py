"""The content of an image in words: six random attributes.

They define the image (`training.drawing`), its captions (`training.captions`), and whether the caption of another image
is true of it too (`training.objective`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (215, 35, 35),
    "green": (40, 160, 60),
    "blue": (40, 80, 215),
    "yellow": (240, 220, 45),
    "purple": (130, 45, 165),
    "pink": (245, 135, 185),
    "white": (240, 240, 240),
    "black": (22, 22, 22),
}
BACKGROUND_COLOURS: Mapping[str, tuple[int, int, int]] = {**COLOURS, "grey": (128, 128, 128)}

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "crescent")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SUBJECTS = SHAPES + DIGITS
SIZES = ("small", "large")
POSITIONS = ("left", "right", "top", "bottom", "centre")
TEXTURES = ("plain", "shaded", "noisy", "striped")

MIN_COLOUR_DISTANCE = 110.0  # Euclidean, RGB; below it (blue on purple) people can hardly see a shape


@dataclass(frozen=True)
class Scene:
    """One subject on one background. Each field is a word of the lists above."""

    subject: str
    colour: str
    size: str
    position: str
    background: str
    texture: str

    @property
    def is_digit(self) -> bool:
        return self.subject in DIGITS

    def codes(self) -> tuple[int, ...]:
        """The six fields as indices into their lists, in the order of `FIELDS`."""
        return tuple(words.index(getattr(self, field)) for field, words in FIELDS.items())


FIELDS: Mapping[str, Sequence[str]] = {
    "subject": SUBJECTS,
    "colour": tuple(COLOURS),
    "size": SIZES,
    "position": POSITIONS,
    "background": tuple(BACKGROUND_COLOURS),
    "texture": TEXTURES,
}


def random_scene(rng: np.random.Generator, subject: str, colour: str | None = None) -> Scene:
    """A random scene of `subject`, in `colour` if given; the background contrasts with the colour."""
    chosen = colour if colour is not None else _pick(rng, tuple(COLOURS))
    return Scene(
        subject=subject,
        colour=chosen,
        size=_pick(rng, SIZES),
        position=_pick(rng, POSITIONS),
        background=_pick(rng, _BACKGROUNDS_FOR[chosen]),
        texture=_pick(rng, TEXTURES),
    )


def _pick(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]


def _distance(a: tuple[int, int, int], b: tuple[int, int, int]) -> float:
    return float(np.linalg.norm(np.subtract(a, b)))


_BACKGROUNDS_FOR: Mapping[str, Sequence[str]] = {
    name: tuple(
        other for other, other_rgb in BACKGROUND_COLOURS.items() if _distance(rgb, other_rgb) >= MIN_COLOUR_DISTANCE
    )
    for name, rgb in COLOURS.items()
}
