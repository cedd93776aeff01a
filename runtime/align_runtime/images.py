"""Images to uint8 pixels, bit-equal to transformers' Pillow-backed EfficientNetImageProcessor (5.23).

Encoded images (paths, bytes, file objects) are decoded and rotated by their EXIF orientation. A PIL image is used as it
is: without its orientation tag and, for an animation, with its current frame. Transparent images are composited on
white.

Any number of threads may call these functions. They change no global state of Pillow or `warnings`.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias, runtime_checkable

import numpy
from numpy.typing import NDArray
from PIL import Image, ImageOps

from align_runtime.errors import InputError
from align_runtime.preprocessing import ImagePreprocessing


@runtime_checkable
class BinaryFile(Protocol):
    """A file object that was opened in binary mode."""

    def read(self, size: int = ..., /) -> bytes: ...


ImageInput: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile | Image.Image | NDArray[Any]
)


@dataclass(frozen=True)
class Encoded:
    """The bytes of an image file, and what errors call it."""

    data: bytes
    name: str


MAX_PIXELS = 178_956_970  # 512 MiB as RGB; Pillow's own limit for errors
MAX_FILE_BYTES = 1 << 30  # twice the largest uncompressed 8-bit RGB image
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")  # tried in this order
SUPPORTED = (
    "a path, bytes, a binary file object, a PIL image, or a numpy uint8 array (height × width × 1, 3 or 4 channels, or "
    "height × width)"
)
_CHUNK_BYTES = 1 << 20
_NOT_A_PATH = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|data:")
_BAND_PIXELS = 1 << 20  # limits the float64 temporaries of compositing to 32 MB


def preprocess(images: Sequence[ImageInput], config: ImagePreprocessing) -> NDArray[numpy.uint8]:
    """Decodes, resizes and crops.

    Args:
        images: any number of images; see `ImageInput`.
        config: the preprocessing of the model.

    Returns:
        uint8 (n, height, width, 3) RGB, with height and width as in `config.output_size`.

    Raises:
        InputError: an image cannot be used; `index` is its position.
    """
    if is_image(images) or not isinstance(images, Sequence):
        kind = type(images).__name__
        raise InputError(f"expected a list of images, got {kind}; pass [image], or list(…) of a stacked array")
    pixels = numpy.empty((len(images), *config.output_size, 3), numpy.uint8)
    for index, image in enumerate(images):
        try:
            pixels[index] = fit(decode(image), config)
        except InputError as error:
            raise InputError(str(error), index) from error.__cause__
    return pixels


def is_image(value: object) -> bool:
    """Whether `value` is a single image, not a list of images, although it may be iterable (arrays are, too)."""
    if isinstance(value, numpy.ndarray):
        return value.ndim in (2, 3)  # the rows of an array could pass for grey images
    return isinstance(value, str | bytes | bytearray | memoryview | os.PathLike | Image.Image | BinaryFile)


def decode(image: ImageInput | Encoded) -> Image.Image:
    """The image in mode RGB, upright and fully loaded. A PIL image that is RGB already is returned uncopied.

    Raises:
        InputError: the image is missing, unreadable, damaged, too large, of an unknown format, or not an image.
    """
    if isinstance(image, Image.Image):
        check_size(*image.size, "the PIL image")
        return _rgb(image, "the PIL image")
    if isinstance(image, numpy.ndarray):
        return _from_array(image)
    if isinstance(image, str | os.PathLike):
        with _opened(os.fspath(image)) as stream:
            return _from_stream(stream, os.fspath(image))
    file = read_encoded(image)
    return _from_stream(BytesIO(file.data), file.name)


def read_encoded(image: str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile | Encoded) -> Encoded:
    """The bytes of an image file: of a path, bytes, or a file object from its position to its end.

    A file object that can seek returns to its position, so that it can be given again.

    Raises:
        InputError: the file is missing, unreadable, empty or too large, or `image` is none of these.
    """
    if isinstance(image, Encoded):
        return image
    if isinstance(image, str | os.PathLike):
        with _opened(os.fspath(image)) as stream:
            return Encoded(stream.read(MAX_FILE_BYTES), os.fspath(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return _from_bytes(image)
    if isinstance(image, BinaryFile):
        return _from_bytes(_read_all(image))
    raise InputError(f"an image cannot be a {type(image).__name__}; supported are {SUPPORTED}")


def _from_bytes(data: bytes | bytearray | memoryview) -> Encoded:
    try:
        size = data.nbytes if isinstance(data, memoryview) else len(data)
    except ValueError as reason:  # a memoryview that was released
        raise InputError(f"the {type(data).__name__} cannot be read: {reason}") from None
    _check_file_size(size, "the image")
    return Encoded(bytes(data), f"the image of {size} bytes")


def _read_all(file: BinaryFile) -> bytearray:
    """The bytes of `file` from its position to its end, at most one chunk more than `MAX_FILE_BYTES`."""
    data, kind = bytearray(), type(file).__name__
    position = _position(file)
    while len(data) <= MAX_FILE_BYTES:
        try:
            chunk = file.read(_CHUNK_BYTES)
        except (OSError, ValueError, TypeError) as reason:  # ValueError: it is closed; TypeError: read() takes no size
            raise InputError(f"the {kind} cannot be read: {reason}") from None
        if not isinstance(chunk, bytes):
            raise InputError(f"read() of the {kind} returns {type(chunk).__name__}; open the file in binary mode")
        if not chunk:
            break
        data += chunk
    if position is not None:
        with suppress(OSError, ValueError):
            file.seek(position)  # type: ignore[attr-defined]
    return data


def _position(file: BinaryFile) -> int | None:
    """Where `file` stands; None where it cannot return there."""
    try:
        position = file.tell() if file.seekable() else None  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return None
    return position if isinstance(position, int) else None


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    """The image file `path`, open for reading."""
    if not isinstance(path, str):
        raise InputError(f"the path {path!r} is not a str; decode it with os.fsdecode")
    if _NOT_A_PATH.match(path):
        raise InputError(f"{path[:80]!r} is a URL, which is not fetched; download it and pass a path or bytes")
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path} is not a regular file")
        _check_file_size(status.st_size, path)
        with Path(path).open("rb") as stream:
            yield stream
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
            raise InputError(f"{name} is not an image in a supported format ({', '.join(FORMATS)}), or it is damaged")
        check_size(*image.size, name)
        ImageOps.exif_transpose(image, in_place=True)
    except (InputError, MemoryError):
        raise
    except Exception as reason:  # Pillow's plugins raise almost any exception for damaged files
        raise InputError(f"{name} is truncated or damaged: {reason}") from reason
    return _rgb(image, name)


def _open(stream: IO[bytes]) -> Image.Image | None:
    """Reads the header with the plugins of `FORMATS`, as Image.open does, but without Pillow's check of the size.

    That check only warns between one and two times a global limit; `_check_size` runs before anything is decoded.
    `FORMATS` excludes plugins that must not read untrusted files, e.g. EPS, which starts Ghostscript.
    """
    Image.init()
    prefix = stream.read(16)
    for name in FORMATS:
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory is None or accept is None or accept(prefix) is not True:  # a str: not compiled in
            continue
        stream.seek(0)
        try:
            return factory(stream, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue
    return None


def _rgb(image: Image.Image, name: str) -> Image.Image:
    """transformers.image_transforms.convert_to_rgb, without its copy of an image that is RGB already."""
    try:
        image.load()
        if "A" in image.getbands() or image.info.get("transparency") is not None:
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
        return image if image.mode == "RGB" else image.convert("RGB")
    except MemoryError:
        raise
    except Exception as reason:
        raise undecodable(name, image.mode, reason) from reason


def undecodable(name: str, mode: str, reason: Exception) -> InputError:
    """The error for a PIL image that Pillow cannot decode or convert, because of `reason`."""
    return InputError(f"{name} (mode {mode}) is truncated, damaged or not convertible: {reason}")


def _from_array(array: NDArray[Any]) -> Image.Image:
    shape = " × ".join(str(side) for side in array.shape)
    if array.dtype != numpy.uint8:
        nan = array.dtype.kind == "f" and bool(numpy.isnan(array).any())
        raise InputError(
            f"the array is {array.dtype}{' and contains NaN' if nan else ''}; pass uint8 values 0–255, "
            "e.g. (array * 255).round().astype('uint8') for values from 0 to 1"
        )
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        raise InputError(f"the array is {shape}, channels first; pass array.transpose(1, 2, 0)")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise InputError(f"the array is {shape}; expected height × width × 1, 3 or 4 channels, or height × width")
    check_size(array.shape[1], array.shape[0], "the array")
    if array.ndim == 3 and array.shape[2] == 4:
        array = _on_white(array)
    elif array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    image = Image.fromarray(array)
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_white(array: NDArray[numpy.uint8]) -> NDArray[numpy.uint8]:
    """uint8 (height, width, 3) of RGBA on white, with the float64 arithmetic of transformers' convert_to_rgb."""
    height, width, _ = array.shape
    rgb = numpy.empty((height, width, 3), numpy.uint8)
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        band = array[top : top + rows]
        alpha = band[..., 3:] / 255
        rgb[top : top + rows] = numpy.round(alpha * band[..., :3] + (1 - alpha) * 255)
    return rgb


def fit(image: Image.Image, config: ImagePreprocessing) -> NDArray[numpy.uint8]:
    """Resizes and crops to uint8 (height, width, 3). Resizing the crop alone, with `box`, would not be bit-exact."""
    if config.size is not None and config.resample is not None:
        height, width = config.size.target(image.height, image.width)
        # Pillow resizes rows first, so the intermediate image has the new width and the old height.
        if not 0 < width * height <= MAX_PIXELS or width * image.height > MAX_PIXELS:
            raise InputError(
                f"the image is {image.width} × {image.height} and would be resized to {width} × {height}; "
                f"expected sides of at least 1 and at most {MAX_PIXELS} pixels in between; crop the image"
            )
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling(config.resample))
    if config.crop_size is not None and (image.height, image.width) != config.crop_size:
        height, width = config.crop_size
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))  # black outside of the image
    return numpy.asarray(image)


def check_size(width: int, height: int, name: str) -> None:
    """Raises InputError unless an image can be that large."""
    if width * height == 0:
        raise InputError(f"{name} has no pixels ({width} × {height})")
    if width * height > MAX_PIXELS:
        raise InputError(f"{name} has {width} × {height} pixels; expected at most {MAX_PIXELS}, scale it down")


def _check_file_size(size: int, name: str) -> None:
    if size == 0:
        raise InputError(f"{name} is empty (0 bytes)")
    if size > MAX_FILE_BYTES:
        raise InputError(f"{name} has {size} bytes; expected at most {MAX_FILE_BYTES}")
