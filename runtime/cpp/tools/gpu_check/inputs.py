"""The inputs of cpp_gpu_check.cpp, made again for Python."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CELLS = 9  # an image is a grid of coloured cells
COLOURS = ("red", "green", "blue", "white", "black", "yellow", "grey", "orange")
SHAPES = ("circle", "star", "heart", "triangle")
WORDS = ("river", "evening", "seven", "café", "blue", "walking")


def images_of(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """uint8 (count, height, width, 3): grids of CELLS × CELLS colours from one linear congruential generator."""
    state, values = 1, []
    for _ in range(count * CELLS * CELLS * 3):
        state = (state * 1664525 + 1013904223) % 2**32
        values.append(state >> 24)
    cells = np.array(values, np.uint8).reshape(count, CELLS, CELLS, 3)
    rows, columns = np.arange(height) * CELLS // height, np.arange(width) * CELLS // width
    return np.ascontiguousarray(cells[:, rows][:, :, columns])


def captions() -> list[str]:
    """32 captions of about the same length."""
    return [f"a photo of a {colour} {shape}" for shape in SHAPES for colour in COLOURS]


def mixed_texts() -> list[str]:
    """20 texts of lengths from none to beyond the longest."""
    return [" ".join(WORDS[(i + k) % len(WORDS)] for k in range(5 * i)) for i in range(20)]
