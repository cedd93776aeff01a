"""Images of noise in every Pillow mode and file format."""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy
from PIL import Image


def noise(height: int, width: int, channels: int, seed: int = 0) -> numpy.ndarray:
    """uint8 noise of shape (height, width, channels); half of the levels are 0 or 255, so that filters clip."""
    clipped = (numpy.arange(256) * 2 - 128).clip(0, 255).astype(numpy.uint8)
    levels = numpy.frombuffer(numpy.random.default_rng(seed).bytes(height * width * channels), numpy.uint8)
    return clipped.take(levels).reshape(height, width, channels)


def image(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(noise(height, width, 3, seed))


def of_mode(mode: str, height: int = 41, width: int = 29) -> Image.Image:
    bands = {"1": 1, "L": 1, "P": 1, "LA": 2, "PA": 2, "La": 2}
    if mode in ("I", "F"):
        values = numpy.random.default_rng(3).integers(-300, 700, (height, width))
        return Image.fromarray(values.astype(numpy.int32 if mode == "I" else numpy.float32))
    if mode.startswith("I;16"):
        values = numpy.random.default_rng(3).integers(0, 600, (height, width)).astype(numpy.uint16)
        data = values.astype(">u2" if mode.endswith("B") else "<u2").tobytes()
        return Image.frombytes(mode, (width, height), data)
    if mode == "1":
        return Image.fromarray(noise(height, width, 1)[..., 0] > 100)
    count = bands.get(mode, 4 if mode in ("RGBA", "RGBa", "RGBX", "CMYK") else 3)
    made = Image.frombytes(mode, (width, height), noise(height, width, count).tobytes())
    if mode in ("P", "PA"):
        made.putpalette(noise(256, 3, 1, 4).tobytes())
    return made


def encoded(source: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    source.copy().save(buffer, kind, **options)  # a copy, since save() leaves encoder settings in the image
    return buffer.getvalue()


@functools.cache
def files() -> dict[str, bytes]:
    frames = [image(40, 30, seed).convert("P") for seed in range(3)]
    animated = {"save_all": True, "append_images": frames[1:]}
    first, second = image(40, 30, 5), image(40, 30, 6)
    return {
        "jpeg": encoded(first, "JPEG"),
        "jpeg progressive": encoded(first, "JPEG", progressive=True),
        "jpeg grey": encoded(of_mode("L"), "JPEG"),
        "jpeg CMYK": encoded(of_mode("CMYK"), "JPEG"),
        "mpo": encoded(first, "MPO", save_all=True, append_images=[second.copy()]),
        **{f"png {mode}": encoded(of_mode(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")},
        "png P transparent": encoded(of_mode("P"), "PNG", transparency=bytes(range(256))),
        "png RGB transparent": encoded(first, "PNG", transparency=first.getpixel((0, 0))),
        "webp": encoded(first, "WEBP"),
        "webp RGBA": encoded(of_mode("RGBA"), "WEBP", lossless=True, exact=True),
        "webp animated": encoded(first, "WEBP", save_all=True, append_images=[second.copy()]),
        "gif animated": encoded(frames[0], "GIF", **animated),
        "gif transparent": encoded(frames[0], "GIF", transparency=3, **animated),
        "bmp": encoded(first, "BMP"),
        "tiff": encoded(first, "TIFF"),
        "tiff CMYK": encoded(of_mode("CMYK"), "TIFF", compression="tiff_lzw"),
        "tiff F": encoded(of_mode("F"), "TIFF"),
        "tiff pages": encoded(first, "TIFF", save_all=True, append_images=[second.copy()]),
        "ppm": encoded(first, "PPM"),
        "jpeg 2000": encoded(first, "JPEG2000"),
        "avif": encoded(first, "AVIF"),
    }
