"""Encoded images (JPEG, PNG, …) to Pillow's images: upright, loaded, and bounded before anything is decoded."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from io import BytesIO

from PIL import Image

from align_runtime.containers import bmp, gif, jpeg, png, tiff, webp
from align_runtime.containers.directory import PREFIXES
from align_runtime.containers.stripped import Stripped
from align_runtime.errors import InputError
from align_runtime.image_options import MAX_SIDE, ImageOptions
from align_runtime.orientation import orientation_of, upright

# One plugin each, never chosen by Pillow: others must not read untrusted files, e.g. EPS, which starts Ghostscript.
# JpegImageFile also takes the first of several images in a file, whatever the index of an MPO file says.
PLUGINS = {
    "JPEG": ("JpegImagePlugin", "JpegImageFile"),
    "PNG": ("PngImagePlugin", "PngImageFile"),
    "WEBP": ("WebPImagePlugin", "WebPImageFile"),
    "GIF": ("GifImagePlugin", "GifImageFile"),
    "BMP": ("BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("TiffImagePlugin", "TiffImageFile"),
    "PPM": ("PpmImagePlugin", "PpmImageFile"),
    "JPEG2000": ("Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    "AVIF": ("AvifImagePlugin", "AvifImageFile"),  # of Pillow 11.3
}
STRIP: dict[str, Callable[[bytes], Stripped]] = {
    "JPEG": jpeg.strip,
    "PNG": png.strip,
    "WEBP": webp.strip,
    "GIF": gif.strip,
    "BMP": bmp.strip,
    "TIFF": tiff.strip,
}


def decode_bytes(data: bytes, options: ImageOptions) -> Image.Image:
    """The image in the file `data`, upright and loaded, in the mode of the file; of several images the first.

    Raises:
        InputError: it is in no format of `options`, too large or too expensive to decode, or cannot be decoded.
        MemoryError: there is not enough memory for an image within the limits.
    """
    kind = recognized(data)
    if kind is None:
        raise InputError(f"is not an image in a supported format ({', '.join(options.formats)})")
    if kind not in options.formats:
        wanted = (*options.formats, kind)
        raise InputError(f"is in the format {kind}, which is not allowed; pass formats={wanted} to decode it")
    try:
        if kind in STRIP:
            stripped = STRIP[kind](data)
            check_size(stripped.size, options)
            data = stripped.data
        module, plugin = PLUGINS[kind]
        image: Image.Image = getattr(import_module(f"PIL.{module}"), plugin)(BytesIO(data), "")
        check_size(image.size, options)
        if kind not in STRIP:
            stripped = Stripped(b"", image.size, image.info.get("exif"), image.info.get("xmp"))
        image.load()
    except (InputError, MemoryError):
        raise
    except Exception as reason:  # Pillow's plugins raise almost any exception
        raise InputError(f"cannot be decoded as {kind}: {str(reason) or type(reason).__name__}") from reason
    return upright(image, orientation_of(stripped.exif, stripped.xmp))


def check_size(size: tuple[int, int], options: ImageOptions) -> None:
    """Raises InputError for an image of `size`, (width, height), that has no pixels or too many."""
    width, height = size
    if width < 1 or height < 1:
        raise InputError(f"has no pixels ({width} × {height})")
    if width * height > options.max_pixels:
        raise InputError(
            f"has {width} × {height} pixels; expected at most {options.max_pixels}; scale it down or pass max_pixels="
        )
    if max(width, height) > MAX_SIDE:
        raise InputError(f"has {width} × {height} pixels; expected sides of at most {MAX_SIDE}; crop it")


_BEGINS: dict[str, Callable[[bytes], bool]] = {
    "JPEG": lambda start: start.startswith(b"\xff\xd8\xff"),
    "PNG": lambda start: start.startswith(png.SIGNATURE),
    "WEBP": lambda start: start[:4] == b"RIFF" and start[8:12] == b"WEBP",
    "GIF": lambda start: start.startswith((b"GIF87a", b"GIF89a")),
    "BMP": lambda start: start.startswith(b"BM"),
    "TIFF": lambda start: start.startswith(tuple(PREFIXES)),
    "PPM": lambda start: start[:1] == b"P" and len(start) > 1 and start[1] in b"0123456fy",
    "JPEG2000": lambda start: start.startswith((b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  \r\n\x87\n")),
    "AVIF": lambda start: start[4:8] == b"ftyp" and start[8:12] in (b"avif", b"avis", b"mif1", b"msf1"),
}


def recognized(data: bytes) -> str | None:
    """The format in `PLUGINS` that the first bytes of `data` tell; None for another."""
    for kind, begins in _BEGINS.items():
        if begins(data[:32]):
            return kind
    return None
