"""The size that an image is resized to, computed from its own size with the truncations of transformers 5.23."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from align_runtime.errors import ConfigurationError
from align_runtime.json_files import of_kind

MAX_SIDE = 8192  # pixels; limits the output of one image to 200 MB and stays below Pillow's own warning
SIZE_RULES = (
    ("height", "width"),
    ("shortest_edge",),
    ("shortest_edge", "longest_edge"),
    ("max_height", "max_width"),
)


@dataclass(frozen=True)
class Size:
    """A rule of `SIZE_RULES` and its values in pixels, in the order of the rule."""

    rule: tuple[str, ...]
    values: tuple[int, ...]

    @classmethod
    def from_json(cls, value: Any, where: str) -> Size:
        """Reads an object such as ``{"height": 346, "width": 346}``.

        Raises:
            ConfigurationError: another set of keys, or a value that is not an integer from 1 to `MAX_SIDE`.
        """
        sides = of_kind(where, value, dict)
        for rule in SIZE_RULES:
            if set(rule) == set(sides):
                return cls(rule, tuple(_side(f"{where}.{key}", sides[key]) for key in rule))
        supported = " or ".join("+".join(rule) for rule in SIZE_RULES)
        raise ConfigurationError(f"{where} has the keys {sorted(sides)[:8]}; supported are {supported}")

    def to_json(self) -> dict[str, int]:
        return dict(zip(self.rule, self.values, strict=True))

    @property
    def fixed(self) -> bool:
        """Whether every image is resized to the same size."""
        return self.rule == ("height", "width")

    def target(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that an image of `height` × `width` is resized to, with transformers' truncations.

        A side may be 0 for an extreme aspect ratio.
        """
        match self.rule:
            case ("height", "width"):
                return self.values[0], self.values[1]
            case ("shortest_edge",):  # transformers.image_transforms.get_resize_output_image_size
                short, long = min(height, width), max(height, width)
                new_long = int(self.values[0] * long / short)
                return (new_long, self.values[0]) if width <= height else (self.values[0], new_long)
            case ("shortest_edge", "longest_edge"):
                return _between_edges(height, width, *self.values)
            case _:  # transformers.image_utils.get_image_size_for_max_height_width
                scale = min(self.values[0] / height, self.values[1] / width)
                return int(height * scale), int(width * scale)


def _between_edges(height: int, width: int, size: int, max_size: int) -> tuple[int, int]:
    """transformers.image_transforms.get_size_with_aspect_ratio, step by step: its truncations depend on the order."""
    short, long = float(min(height, width)), float(max(height, width))
    exact: float = size
    if long / short * size > max_size:
        exact = max_size * short / long
        size = round(exact)
    if min(height, width) == size:
        return height, width
    if width < height:
        return int(exact * height / width), size
    return size, int(exact * width / height)


def _side(name: str, value: Any) -> int:
    side: int = of_kind(name, value, int)
    if not 1 <= side <= MAX_SIDE:
        raise ConfigurationError(f"{name} is {str(side)[:40]}; expected 1 to {MAX_SIDE} pixels")
    return side
