"""Images of any mode in RGB, with their transparency dropped or laid on a colour."""

from __future__ import annotations

import numpy
from numpy.typing import NDArray
from PIL import Image

Colour = tuple[int, int, int]
BAND_PIXELS = 1 << 20  # bounds what compositing needs beside the image and its result


def to_rgb(image: Image.Image, background: Colour | None) -> Image.Image:
    """`image`, which is loaded, in mode RGB; the same object where nothing has to be done.

    Args:
        background: the colour behind transparent pixels, composited as Pillow does and with it transformers'
            `convert_to_rgb`; None drops the alpha channel, as ``convert("RGB")`` does in transformers' `load_image`.
    """
    transparent = "transparency" in image.info
    if background is not None and ("A" in image.getbands() or transparent):
        return _composited(image, background)
    if image.mode == "RGB":
        return image
    if transparent:  # Pillow would convert it too, and warn or fail where that cannot be done
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


def _composited(image: Image.Image, background: Colour) -> Image.Image:
    width, height = image.size
    result = Image.new("RGB", image.size)
    rows = max(1, BAND_PIXELS // width)
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(top + rows, height))).convert("RGBA")
        behind = Image.new("RGBA", band.size, (*background, 255))
        result.paste(Image.alpha_composite(behind, band).convert("RGB"), (0, top))
    return result


def array_to_rgb(array: NDArray[numpy.uint8], background: Colour | None) -> NDArray[numpy.uint8]:
    """uint8 (height, width, 3) of RGBA (height, width, 4), with the float64 arithmetic of `convert_to_rgb`."""
    if background is None:
        return array[..., :3]
    height, width, _ = array.shape
    rgb = numpy.empty((height, width, 3), numpy.uint8)
    rows = max(1, BAND_PIXELS // width)
    for top in range(0, height, rows):
        band = array[top : top + rows]
        alpha = band[..., 3:] / 255
        rgb[top : top + rows] = numpy.round(alpha * band[..., :3] + (1 - alpha) * numpy.array(background))
    return rgb
