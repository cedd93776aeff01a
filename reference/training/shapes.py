"""The drawn shapes as antialiased coverage masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from PIL import Image, ImageDraw

SUPERSAMPLING = 4

Point = tuple[float, float]


def shape_mask(name: str, diameter: int, rotation: float) -> Image.Image:
    """Coverage mask of a shape, mode "L", 255 inside.

    Args:
        name: one of `scenes.SHAPES`.
        diameter: side of the square mask in pixels; the shape nearly fills it.
        rotation: degrees, anticlockwise.
    """
    side = diameter * SUPERSAMPLING
    mask = Image.new("L", (side, side), 0)
    _PAINTERS[name](ImageDraw.Draw(mask), side)
    if rotation:
        mask = mask.rotate(rotation, resample=Image.Resampling.BILINEAR)
    return mask.resize((diameter, diameter), resample=Image.Resampling.BOX)


def _polar(side: int, angle: float, radius: float) -> Point:
    """The point at `angle` degrees clockwise from the top; `radius` 1 is the edge of the mask."""
    turn = math.radians(angle)
    return side / 2 * (1 + radius * math.sin(turn)), side / 2 * (1 - radius * math.cos(turn))


def _disc(draw: ImageDraw.ImageDraw, centre: Point, radius: float, fill: int) -> None:
    x, y = centre
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _circle(draw: ImageDraw.ImageDraw, side: int) -> None:
    _disc(draw, (side / 2, side / 2), 0.46 * side, 255)


def _square(draw: ImageDraw.ImageDraw, side: int) -> None:
    draw.rectangle((0.13 * side, 0.13 * side, 0.87 * side, 0.87 * side), fill=255)


def _triangle(draw: ImageDraw.ImageDraw, side: int) -> None:
    draw.polygon([_polar(side, angle, 0.98) for angle in (0, 120, 240)], fill=255)


def _star(draw: ImageDraw.ImageDraw, side: int) -> None:
    corners = [_polar(side, 36 * i, 0.98 if i % 2 == 0 else 0.4) for i in range(10)]
    draw.polygon(corners, fill=255)


def _cross(draw: ImageDraw.ImageDraw, side: int) -> None:
    draw.rectangle((0.37 * side, 0.06 * side, 0.63 * side, 0.94 * side), fill=255)
    draw.rectangle((0.06 * side, 0.37 * side, 0.94 * side, 0.63 * side), fill=255)


def _ring(draw: ImageDraw.ImageDraw, side: int) -> None:
    _disc(draw, (side / 2, side / 2), 0.47 * side, 255)
    _disc(draw, (side / 2, side / 2), 0.27 * side, 0)


def _heart(draw: ImageDraw.ImageDraw, side: int) -> None:
    _disc(draw, (0.29 * side, 0.32 * side), 0.22 * side, 255)
    _disc(draw, (0.71 * side, 0.32 * side), 0.22 * side, 255)
    # The straight sides touch the two discs, so the outline has no notch.
    draw.polygon(
        [(0.5 * side, 0.3 * side), (0.88 * side, 0.46 * side), (0.5 * side, 0.95 * side), (0.12 * side, 0.46 * side)],
        fill=255,
    )


def _crescent(draw: ImageDraw.ImageDraw, side: int) -> None:
    _disc(draw, (0.47 * side, 0.5 * side), 0.46 * side, 255)
    _disc(draw, (0.68 * side, 0.5 * side), 0.38 * side, 0)


_PAINTERS: Mapping[str, Callable[[ImageDraw.ImageDraw, int], None]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "heart": _heart,
    "crescent": _crescent,
}
