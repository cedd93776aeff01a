"""Images to uint8 pixels, bit-equal to what transformers' AlignProcessor (5.23, with Pillow) makes of the same file.

Encoded images (paths, bytes, file objects) are decoded and rotated by their EXIF orientation. A PIL image is used as it
is: without its orientation tag and, for an animation, with its current frame. Transparency is dropped, or laid on a
colour; see `ImageOptions`.

Any number of threads may call these functions. They change no global state of Pillow or `warnings`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy
from numpy.typing import NDArray
from PIL import Image

from align_runtime.encoded_images import check_size, decode_bytes
from align_runtime.errors import InputError
from align_runtime.foreign_text import shortened
from align_runtime.image_options import DEFAULT_IMAGES, LARGEST_MAX_PIXELS, ImageOptions
from align_runtime.preprocessing import ImagePreprocessing
from align_runtime.regular_files import read_regular
from align_runtime.transparency import array_to_rgb, to_rgb


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


SUPPORTED = (
    "a path, bytes, a binary file object, a PIL image, or a numpy uint8 array (height × width × 1, 3 or 4 channels, or "
    "height × width)"
)
_CHUNK_BYTES = 1 << 20
_NOT_A_PATH = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|data:")


def preprocess(
    images: Sequence[ImageInput], config: ImagePreprocessing, options: ImageOptions = DEFAULT_IMAGES
) -> NDArray[numpy.uint8]:
    """Decodes, resizes and crops.

    Args:
        images: any number of images; see `ImageInput`.
        config: the preprocessing of the model.
        options: which images are decoded, and what becomes of their transparency.

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
            pixels[index] = fit(decode(image, options), config)
        except InputError as error:
            raise InputError(error.message, index) from error.__cause__
    return pixels


def is_image(value: object) -> bool:
    """Whether `value` is a single image, not a list of images, although it may be iterable (arrays are, too)."""
    if isinstance(value, numpy.ndarray):
        return value.ndim in (2, 3)  # the rows of an array could pass for grey images
    return isinstance(value, str | bytes | bytearray | memoryview | os.PathLike | Image.Image | BinaryFile)


def decode(image: ImageInput | Encoded, options: ImageOptions = DEFAULT_IMAGES) -> Image.Image:
    """The image in mode RGB, upright and fully loaded. A PIL image that is RGB already is returned uncopied.

    Raises:
        InputError: the image is missing, unreadable, too large or too expensive, of a format that is not allowed, or
            not an image; it cannot be decoded, or not in the memory that there is.
    """
    if isinstance(image, numpy.ndarray):
        with _named("the array"):
            return _from_array(image, options)
    if isinstance(image, Image.Image):
        return _pil_to_rgb(load_pil(image, options), options, "the PIL image")
    file = read_encoded(image, options)
    with _named(file.name):
        decoded = decode_bytes(file.data, options)
    return _pil_to_rgb(decoded, options, file.name)


def read_encoded(
    image: str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile | Encoded, options: ImageOptions
) -> Encoded:
    """The bytes of an image file: of a path, bytes, or a file object from its position to its end.

    A file object that can seek returns to its position, so that it can be given again.

    Raises:
        InputError: the file is missing, unreadable, empty or too large, or `image` is none of these.
    """
    if isinstance(image, Encoded):
        return image
    if isinstance(image, str | os.PathLike):
        name = path_of(image)
        file = Encoded(_read_path(name, options), name)
    elif isinstance(image, bytes | bytearray | memoryview):
        data = _copied(image, options)
        file = Encoded(data, f"the image of {len(data)} bytes")
    elif isinstance(image, BinaryFile):
        data = _read_all(image, options)
        file = Encoded(data, f"the image of {len(data)} bytes")
    else:
        raise InputError(f"an image cannot be a {type(image).__name__}; supported are {SUPPORTED}")
    if not file.data:
        raise InputError(f"{file.name} is empty (0 bytes)")
    return file


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Puts `name` before the message of an InputError; a MemoryError becomes one."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{name} {error.message}") from error.__cause__
    except MemoryError:
        raise InputError(f"{name} needs more memory than there is; scale it down or set a lower max_pixels=") from None


def _copied(data: bytes | bytearray | memoryview, options: ImageOptions) -> bytes:
    """The bytes of `data`; `data` itself if it is bytes."""
    try:
        size = data.nbytes if isinstance(data, memoryview) else len(data)
    except ValueError as reason:  # a memoryview that was released
        raise InputError(f"the {type(data).__name__} cannot be read: {reason}") from None
    if size > options.max_file_bytes:
        raise InputError(f"the image has {size} bytes; expected at most {options.max_file_bytes}")
    return bytes(data)


def _read_all(file: BinaryFile, options: ImageOptions) -> bytes:
    """The bytes of `file` from its position to its end, at most one chunk more than allowed."""
    data, kind, position = bytearray(), type(file).__name__, _position(file)
    while True:
        try:
            chunk = file.read(_CHUNK_BYTES)
        except Exception as reason:  # of any kind: EOFError, BadZipFile, IncompleteRead, zlib.error, closed, no size
            raise InputError(f"the {kind} cannot be read: {str(reason) or type(reason).__name__}") from None
        if not isinstance(chunk, bytes):
            raise InputError(f"read() of the {kind} returns {type(chunk).__name__}; open the file in binary mode")
        if not chunk:
            break
        data += chunk
        if len(data) > options.max_file_bytes:
            raise InputError(f"the {kind} has {len(data)} or more bytes; expected at most {options.max_file_bytes}")
    if position is not None:
        with suppress(OSError, ValueError):
            file.seek(position)  # type: ignore[attr-defined]
    return bytes(data)


def _position(file: BinaryFile) -> int | None:
    """Where `file` stands; None where it cannot return there."""
    try:
        position = file.tell() if file.seekable() else None  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return None
    return position if isinstance(position, int) else None


def path_of(image: str | os.PathLike[str]) -> str:
    """The path that `image` is.

    Raises:
        InputError: it is empty, not a str, or fails to tell.
    """
    try:
        path = os.fspath(image)
    except Exception as reason:  # of a class of the caller's
        raise InputError(f"the {type(image).__name__} gives no path: {str(reason) or type(reason).__name__}") from None
    if not isinstance(path, str):
        raise InputError(f"the path {shortened(path)} is not a str; decode it with os.fsdecode")
    if not path:
        raise InputError("the path is empty")
    return path


def _read_path(path: str, options: ImageOptions) -> bytes:
    if _NOT_A_PATH.match(path):
        raise InputError(f"{path[:80]!r} is a URL, which is not fetched; download it and pass a path or bytes")
    return read_regular(Path(path), options.max_file_bytes, InputError)


def load_pil(image: Image.Image, options: ImageOptions, copied: bool = False) -> Image.Image:
    """`image`, or a copy, with its pixels in memory; of an animation those of the current frame.

    Raises:
        InputError: it is too large, or cannot be loaded.
    """
    with _named("the PIL image"):
        check_size(image.size, options)
        try:
            image.load()
            return image.copy() if copied else image
        except MemoryError:
            raise
        except Exception as reason:  # Pillow's plugins raise almost any exception
            raise InputError(f"(mode {image.mode}) cannot be loaded: {reason}") from reason


def _pil_to_rgb(image: Image.Image, options: ImageOptions, name: str) -> Image.Image:
    with _named(name):
        try:
            return to_rgb(image, options.background)
        except MemoryError:
            raise
        except Exception as reason:
            raise InputError(f"(mode {image.mode}) cannot be converted to RGB: {reason}") from reason


def _from_array(array: NDArray[Any], options: ImageOptions) -> Image.Image:
    shape = " × ".join(str(side) for side in array.shape)
    if array.dtype != numpy.uint8:
        nan = array.dtype.kind == "f" and bool(numpy.isnan(array).any())
        raise InputError(
            f"is {array.dtype}{' and contains NaN' if nan else ''}; pass uint8 values 0–255, "
            "e.g. (array * 255).round().astype('uint8') for values from 0 to 1"
        )
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        raise InputError(f"is {shape}, channels first; pass array.transpose(1, 2, 0)")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise InputError(f"is {shape}; expected height × width × 1, 3 or 4 channels, or height × width")
    check_size((array.shape[1], array.shape[0]), options)
    if array.ndim == 3 and array.shape[2] == 4:
        array = array_to_rgb(array, options.background)
    elif array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    image = Image.fromarray(array)
    return image if image.mode == "RGB" else image.convert("RGB")


def fit(image: Image.Image, config: ImagePreprocessing) -> NDArray[numpy.uint8]:
    """Resizes and crops to uint8 (height, width, 3). Resizing the crop alone, with `box`, would not be bit-exact.

    Raises:
        InputError: a size on the way there is 0 or more than allowed, or the memory does not suffice for it.
    """
    with _named("the image"):
        if config.size is not None and config.resample is not None:
            height, width = config.size.target(image.height, image.width)
            # Pillow before 13 resizes rows first: the intermediate image has the new width and the old height. Pillow
            # 13 resizes columns first where they lose more than twice as many pixels; then it is at most the image.
            if not 0 < width * height <= LARGEST_MAX_PIXELS or width * image.height > LARGEST_MAX_PIXELS:
                raise InputError(
                    f"is {image.width} × {image.height} and would be resized to {width} × {height}; expected sides of "
                    f"at least 1 and at most {LARGEST_MAX_PIXELS} pixels in between; crop the image"
                )
            if image.size != (width, height):
                image = image.resize((width, height), Image.Resampling(config.resample))
        if config.crop_size is not None and (image.height, image.width) != config.crop_size:
            height, width = config.crop_size
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))  # black outside of the image
        return numpy.asarray(image)
