"""Captions to calibrate and judge text towers on: made ones, sentences of Python's documentation, and odd ones."""

from __future__ import annotations

import pydoc_data.topics
import re
from collections.abc import Callable
from random import Random

COLOURS = "red green blue white black yellow brown grey orange purple".split()
THINGS = (
    "cat dog car house tree bird boat person cup phone flower mountain horse train chair book guitar pizza bridge clock"
).split()
PLACES = (
    "on a table;in the snow;at night;by the sea;in a city street;on grass;in a kitchen;under a tree;"
    "in front of a wall;at sunset"
).split(";")
ODD = (
    "",
    "a",
    "?",
    "猫の写真",
    "фото кошки",
    "صورة قطة",
    "तस्वीर",
    "🐱🐶",
    "A PHOTO OF A CAT",
    "aaaa " * 60,
    "3.14159",
    "[MASK]",
    "x" * 120,
    "a photo, of a cat; on a mat - and: more!",
    "naïve café façade",
    "http://example.com/?q=1&b=2",
)
HELD_OUT_COUNT, HELD_OUT_SEED = 200, 999


def captions(count: int, seed: int) -> list[str]:
    """`count` captions, half of them made and half of them sentences."""
    random = Random(seed)
    made = [
        f"a photo of a {random.choice(COLOURS)} {random.choice(THINGS)} {random.choice(PLACES)}"
        for _ in range(count // 2)
    ]
    return made + random.sample(_sentences(), count - len(made))


def held_out_captions(draw: Callable[[int, int], list[str]], of_calibration: list[str]) -> list[str]:
    """The odd captions, and others of `draw`, a count and a seed, that are not among those `of_calibration`."""
    used = set(of_calibration)
    return [*ODD, *(text for text in draw(HELD_OUT_COUNT, HELD_OUT_SEED) if text not in used)]


def _sentences() -> list[str]:
    topics = pydoc_data.topics.topics
    prose = " ".join(" ".join(topics[key].split()) for key in sorted(topics))
    return [sentence for sentence in re.split(r"(?<=[.!?]) ", prose) if 20 < len(sentence) < 200]
