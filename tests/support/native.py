"""The C API of the C++ runtime through ctypes, with the errors of the Python runtime."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_float, c_int32, c_int64, c_size_t, c_uint8, c_void_p
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from align_runtime import errors

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / os.environ.get("ALIGN_CPP_BUILD", "build/cpp") / "libalign_runtime.so"
OK, BUFFER_TOO_SMALL = 0, 10
CLASSES: dict[int, type[errors.AlignError]] = {
    1: errors.ConfigurationError,
    3: errors.InputError,
    4: errors.BundleError,
    5: errors.BackendUnavailableError,
    6: errors.DeviceError,
}


def onnxruntime_library() -> Path:
    """The library in the installed wheel of ONNX Runtime, which Python's module does not use."""
    import onnxruntime

    return next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.1.*"))


class Options(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("precision", c_char_p),
        ("device", c_char_p),
        ("threads", c_int32),
        ("streams", c_int32),
        ("check_hashes", c_int32),
        ("towers", c_char_p),
        ("onnxruntime_library", c_char_p),
        ("manifest_sha256", c_char_p),
        ("alpha", c_char_p),
        ("max_pixels", c_size_t),
        ("provider_library", c_char_p),
    )


class Image(ctypes.Structure):
    _fields_ = (
        ("data", c_void_p),
        ("width", c_size_t),
        ("height", c_size_t),
        ("stride", c_size_t),
        ("channels", c_int32),
    )

    @classmethod
    def of(cls, array: NDArray[np.uint8]) -> Image:
        """`array` (height, width) or (height, width, channels), whose rows may be apart."""
        height, width, *channels = array.shape
        return cls(array.ctypes.data, width, height, array.strides[0], channels[0] if channels else 1)


class Bytes(ctypes.Structure):
    _fields_ = (("data", c_char_p), ("size", c_size_t))


def load_library(path: Path = LIBRARY) -> ctypes.CDLL:
    """The library with the types of its functions."""
    library = ctypes.CDLL(str(path))
    rows = (POINTER(c_float), c_size_t)
    signatures: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "default_options": (Options, ()),
        "open": (c_int32, (c_char_p, POINTER(Options), POINTER(c_void_p))),
        "close": (None, (c_void_p,)),
        "embedding_dim": (c_size_t, (c_void_p,)),
        "max_length": (c_int32, (c_void_p,)),
        "image_size": (None, (c_void_p, POINTER(c_size_t), POINTER(c_size_t))),
        "embed_texts": (c_int32, (c_void_p, POINTER(c_char_p), c_size_t, *rows)),
        "embed_images": (c_int32, (c_void_p, POINTER(Image), c_size_t, *rows)),
        "embed_encoded": (c_int32, (c_void_p, POINTER(Bytes), c_size_t, *rows)),
        "embed_pixels": (c_int32, (c_void_p, c_void_p, c_size_t, *rows)),
        "tokenize": (c_int32, (c_void_p, c_char_p, POINTER(c_int64), c_size_t, POINTER(c_size_t))),
        "preprocess": (c_int32, (c_void_p, POINTER(Image), POINTER(c_uint8), c_size_t)),
        "logits": (c_int32, (c_void_p, POINTER(c_float), c_size_t, POINTER(c_float), c_size_t, *rows)),
        "last_error": (c_char_p, ()),
        "last_error_index": (c_int64, ()),
        "version": (c_char_p, ()),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, f"align_{name}")
        function.restype, function.argtypes = result, arguments
    return library


class NativeModel:
    """A model of the C++ runtime. Methods raise the error of `align_runtime.errors` that belongs to the status."""

    def __init__(self, library: ctypes.CDLL, bundle: Path, **options: Any) -> None:
        self.library = library
        given = library.align_default_options()
        for name, value in ({"onnxruntime_library": str(onnxruntime_library())} | options).items():
            setattr(given, name, value.encode() if isinstance(value, str) else value)
        self.handle = c_void_p()
        self.check(library.align_open(str(bundle).encode(), byref(given), byref(self.handle)))
        self.dim = library.align_embedding_dim(self.handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.library.align_close(self.handle)

    def check(self, status: int) -> None:
        if status == OK:
            return
        message, index = self.library.align_last_error().decode(), self.library.align_last_error_index()
        if status not in CLASSES:
            raise RuntimeError(f"status {status}: {message}")
        error = CLASSES[status](message)
        if isinstance(error, errors.InputError):
            error.index = None if index < 0 else index
        raise error

    @property
    def image_size(self) -> tuple[int, int]:
        height, width = c_size_t(), c_size_t()
        self.library.align_image_size(self.handle, byref(height), byref(width))
        return height.value, width.value

    def embed_texts(self, texts: Sequence[str | bytes]) -> NDArray[np.float32]:
        encoded = [text if isinstance(text, bytes) else text.encode() for text in texts]
        return self._embed("embed_texts", (c_char_p * len(encoded))(*encoded), len(encoded))

    def embed_images(self, arrays: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        images = [Image.of(array) for array in arrays]
        return self._embed("embed_images", (Image * len(images))(*images), len(images))

    def embed_encoded(self, files: Sequence[bytes]) -> NDArray[np.float32]:
        return self._embed(
            "embed_encoded", (Bytes * len(files))(*[Bytes(data, len(data)) for data in files]), len(files)
        )

    def embed_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._embed("embed_pixels", pixels.ctypes.data, len(pixels))

    def _embed(self, function: str, inputs: Any, count: int) -> NDArray[np.float32]:
        rows = np.empty((count, self.dim), np.float32)
        out = rows.ctypes.data_as(POINTER(c_float))
        self.check(getattr(self.library, f"align_{function}")(self.handle, inputs, count, out, rows.size))
        return rows

    def tokenize(self, text: str | bytes) -> list[int]:
        ids, length = (c_int64 * (1 << 16))(), c_size_t()
        encoded = text if isinstance(text, bytes) else text.encode()
        self.check(self.library.align_tokenize(self.handle, encoded, ids, len(ids), byref(length)))
        return list(ids[: length.value])

    def preprocess(self, array: NDArray[np.uint8]) -> NDArray[np.uint8]:
        pixels = np.empty((*self.image_size, 3), np.uint8)
        out = pixels.ctypes.data_as(POINTER(c_uint8))
        self.check(self.library.align_preprocess(self.handle, byref(Image.of(array)), out, pixels.size))
        return pixels

    def logits(self, images: NDArray[np.float32], texts: NDArray[np.float32]) -> NDArray[np.float32]:
        out = np.empty((len(images), len(texts)), np.float32)
        left, right, result = (array.ctypes.data_as(POINTER(c_float)) for array in (images, texts, out))
        self.check(self.library.align_logits(self.handle, left, len(images), right, len(texts), result, out.size))
        return out
