"""Images from outside to uint8 pixels, bit-equal to transformers' Pillow-backed EfficientNetImageProcessor (5.23).

Paths and bytes are opened, turned upright by their EXIF orientation and then treated as that PIL image would be. A PIL
image is taken as it is: its orientation tag is not read, and of an animation it is the current frame. Transparency is
laid on white.

All functions are pure and may be called from several threads. Nothing global in Pillow or in `warnings` is touched.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy
from numpy.typing import NDArray
from PIL import Image, ImageOps

from align_runtime.errors import InputError
from align_runtime.preprocessing import ImagePreprocessing

ImageInput: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]

MAX_PIXELS = 178_956_970  # 512 MiB as RGB; where Pillow, too, refuses unless told otherwise
MAX_FILE_BYTES = 1 << 30  # twice the largest uncompressed 8-bit RGB image
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")  # tried in this order
SUPPORTED = (
    "a path, bytes, a PIL image, or a numpy uint8 array (height × width × 1, 3 or 4 channels, or height × width)"
)
_NOT_A_PATH = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|data:")
_BAND_PIXELS = 1 << 20  # float64 temporaries of the blending stay below 32 MB


def preprocess(images: Sequence[ImageInput], config: ImagePreprocessing) -> NDArray[numpy.uint8]:
    """Decodes, resizes and crops.

    Args:
        images: any number of images, each of them a path, bytes, a PIL image or a uint8 array.
        config: what to do with them.

    Returns:
        uint8 [n, height, width, 3] RGB, height and width as `config.output_size`.

    Raises:
        InputError: a image that cannot be used; its `index` says which.
    """
    if isinstance(images, str | bytes | os.PathLike | Image.Image) or not isinstance(images, Sequence):
        kind = type(images).__name__
        raise InputError(f"a list of images was expected, got {kind}; pass [image], or list(…) of a stacked array")
    pixels = numpy.empty((len(images), *config.output_size, 3), numpy.uint8)
    for index, image in enumerate(images):
        try:
            pixels[index] = fit(decode(image), config)
        except InputError as error:
            raise InputError(str(error), index) from error.__cause__
    return pixels


def decode(image: ImageInput) -> Image.Image:
    """The image in mode RGB, upright, fully loaded. A PIL image in RGB comes back as it is, not copied.

    Raises:
        InputError: it is missing, damaged, too large, of an unknown format, or not a image.
    """
    if isinstance(image, Image.Image):
        _check_size(*image.size, "the PIL image")
        return _rgb(image, "the PIL image")
    if isinstance(image, numpy.ndarray):
        return _from_array(image)
    if isinstance(image, bytes):
        _check_file_size(len(image), "the image")
        return _from_stream(BytesIO(image), f"the image of {len(image)} bytes")
    if isinstance(image, str | os.PathLike):
        return _from_path(os.fspath(image))
    raise InputError(f"a image cannot be a {type(image).__name__}; supported are {SUPPORTED}")


def _from_path(path: str) -> Image.Image:
    if not isinstance(path, str):
        raise InputError(f"the path {path!r} is not text; decode it with os.fsdecode")
    if _NOT_A_PATH.match(path):
        raise InputError(f"{path[:80]!r} is a URL, which is not fetched; download it and pass a path or bytes")
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path} is not a regular file")
        _check_file_size(status.st_size, path)
        with Path(path).open("rb") as stream:
            return _from_stream(stream, path)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (OSError, ValueError) as reason:  # ValueError: a NUL character in the path
        raise InputError(f"{path!r} cannot be read: {reason}") from None


def _from_stream(stream: IO[bytes], name: str) -> Image.Image:
    try:
        image = _open(stream)
        if image is None:
            raise InputError(f"{name} is no image in a supported format ({', '.join(FORMATS)}), or a damaged one")
        _check_size(*image.size, name)
        ImageOps.exif_transpose(image, in_place=True)
    except (InputError, MemoryError):
        raise
    except Exception as reason:  # Pillow's plugins raise nearly anything on damaged files
        raise InputError(f"{name} is truncated or damaged: {reason}") from reason
    return _rgb(image, name)


def _open(stream: IO[bytes]) -> Image.Image | None:
    """Reads the header with the plugins of `FORMATS`, as Image.open does, but without Pillow's own check of the size.

    That check is a warning between one and two times a global limit; ours follows before anything is decoded.
    Keeping to `FORMATS` also keeps out what should not read untrusted files, such as EPS, which starts Ghostscript.
    """
    Image.init()
    prefix = stream.read(16)
    for name in FORMATS:
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory is None or accept is None or accept(prefix) is not True:  # a str: support was not built in
            continue
        stream.seek(0)
        try:
            return factory(stream, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue
    return None


def _rgb(image: Image.Image, name: str) -> Image.Image:
    """transformers.image_transforms.convert_to_rgb, without the copy of a image that is RGB already."""
    try:
        image.load()
        if "A" in image.getbands() or image.info.get("transparency") is not None:
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
        return image if image.mode == "RGB" else image.convert("RGB")
    except MemoryError:
        raise
    except Exception as reason:
        raise InputError(f"{name} (mode {image.mode}) is truncated, damaged or not convertible: {reason}") from reason


def _from_array(array: NDArray[Any]) -> Image.Image:
    shape = " × ".join(str(side) for side in array.shape)
    if array.dtype != numpy.uint8:
        nan = array.dtype.kind == "f" and bool(numpy.isnan(array).any())
        raise InputError(
            f"the array is {array.dtype}{' and holds NaN' if nan else ''}; pass uint8 levels 0–255, "
            "e.g. (array * 255).round().astype('uint8') for values from 0 to 1"
        )
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        raise InputError(f"the array is {shape}, channels first; pass array.transpose(1, 2, 0)")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise InputError(f"the array is {shape}; supported is height × width × 1, 3 or 4 channels, or height × width")
    _check_size(array.shape[1], array.shape[0], "the array")
    if array.ndim == 3 and array.shape[2] == 4:
        array = _on_white(array)
    elif array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    image = Image.fromarray(array)
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_white(array: NDArray[numpy.uint8]) -> NDArray[numpy.uint8]:
    """uint8 [height, width, 3] of RGBA, with the float64 arithmetic of transformers' convert_to_rgb for arrays."""
    height, width, _ = array.shape
    rgb = numpy.empty((height, width, 3), numpy.uint8)
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        band = array[top : top + rows]
        alpha = band[..., 3:] / 255
        rgb[top : top + rows] = numpy.round(alpha * band[..., :3] + (1 - alpha) * 255)
    return rgb


def fit(image: Image.Image, config: ImagePreprocessing) -> NDArray[numpy.uint8]:
    """Resize and centre crop. The whole image is resized: Image.resize(box=…) of the crop alone is not bit-exact."""
    if config.size is not None and config.resample is not None:
        height, width = config.size.target(image.height, image.width)
        # Pillow scales rows first, so `width` × the old height pixels exist in between.
        if not 0 < width * height <= MAX_PIXELS or width * image.height > MAX_PIXELS:
            raise InputError(
                f"the image is {image.width} × {image.height} and would be resized to {width} × {height}; "
                f"sides must be at least 1 and at most {MAX_PIXELS} pixels are supported on the way"
            )
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling(config.resample))
    if config.crop_size is not None and (image.height, image.width) != config.crop_size:
        height, width = config.crop_size
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))  # black where the image does not reach
    return numpy.asarray(image)


def _check_size(width: int, height: int, name: str) -> None:
    if width * height == 0:
        raise InputError(f"{name} has no pixels ({width} × {height})")
    if width * height > MAX_PIXELS:
        raise InputError(f"{name} has {width} × {height} pixels; at most {MAX_PIXELS} are supported, scale it down")


def _check_file_size(size: int, name: str) -> None:
    if size == 0:
        raise InputError(f"{name} is empty (0 bytes)")
    if size > MAX_FILE_BYTES:
        raise InputError(f"{name} has {size} bytes; at most {MAX_FILE_BYTES} are supported")
