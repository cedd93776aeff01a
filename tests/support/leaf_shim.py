"""The tokenizer, the resize and the decoders of the C++ runtime, called one by one through `libalign_leaf_shim.so`."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint8, c_uint64, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_runtime import errors
from support.native import CLASSES, LIBRARY, OK

SHIM = LIBRARY.with_name("libalign_leaf_shim.so")
MESSAGE_BYTES = 1024
Colour = tuple[int, int, int]


class Shim:
    """The library. Methods raise the error of `align_runtime.errors` that belongs to the status."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(str(SHIM))
        signatures: dict[str, tuple[Any, tuple[Any, ...]]] = {
            "tokenizer_open": (c_int, (c_char_p, c_size_t, c_int32, c_int64, POINTER(c_void_p), c_char_p)),
            "tokenizer_close": (None, (c_void_p,)),
            "tokenizer_encode": (c_int, (c_void_p, c_char_p, c_void_p, c_size_t, c_void_p, c_void_p, c_char_p)),
            "resample": (
                c_int,
                (c_void_p, c_size_t, c_size_t, c_int, c_int, c_size_t, c_size_t, c_int, c_void_p, c_char_p),
            ),
            "decode": (c_int, (c_char_p, c_size_t, c_char_p, POINTER(c_void_p), c_char_p)),
            "image": (POINTER(c_uint8), (c_void_p, POINTER(c_uint64))),
            "image_close": (None, (c_void_p,)),
        }
        for name, (result, arguments) in signatures.items():
            function = getattr(self._library, f"shim_{name}")
            function.restype, function.argtypes = result, arguments

    def function(self, name: str) -> Any:
        return getattr(self._library, f"shim_{name}")

    def call(self, name: str, *arguments: Any) -> None:
        message = ctypes.create_string_buffer(MESSAGE_BYTES)
        status = self.function(name)(*arguments, message)
        if status != OK:
            raise CLASSES.get(status, errors.AlignError)(message.value.decode(errors="replace"))

    def resample(
        self, array: NDArray[np.uint8], size: tuple[int, int], code: int, plain: bool, out: NDArray[np.uint8]
    ) -> None:
        """Writes `array`, (height, width, channels), to `out` in `size`, (width, height)."""
        height, width, channels = array.shape
        self.call("resample", array.ctypes.data, width, height, channels, code, *size, int(plain), out.ctypes.data)

    def decode(self, data: bytes, background: Colour | None) -> NDArray[np.uint8]:
        """uint8 (height, width, 3)."""
        handle, shape = c_void_p(), (c_uint64 * 3)()
        self.call("decode", data, len(data), None if background is None else bytes(background), byref(handle))
        pixels = self._library.shim_image(handle, shape)
        width, height, channels = shape
        array = np.ctypeslib.as_array(pixels, (height, width, channels)).copy()
        self._library.shim_image_close(handle)
        return array if channels == 3 else array.repeat(3, axis=2)


class ShimTokenizer:
    """A tokenizer of the C++ runtime."""

    def __init__(self, shim: Shim, file: bytes, max_length: int, pad_token_id: int = 0) -> None:
        self._shim, self._max_length, self._handle = shim, max_length, c_void_p()
        shim.call("tokenizer_open", file, len(file), max_length, pad_token_id, byref(self._handle))

    def timed(self, texts: Sequence[str]) -> Callable[[], object]:
        """A call that encodes `texts` and nothing else; its buffers are made here."""
        encoded = [text.encode() for text in texts]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.uint64)
        lengths, ids = np.zeros(len(texts), np.uint64), np.empty(len(texts) * self._max_length, np.int64)
        message, joined = ctypes.create_string_buffer(MESSAGE_BYTES), b"".join(encoded)
        pointers = [c_void_p(array.ctypes.data) for array in (ends, ids, lengths)]
        arguments = (self._handle, joined, pointers[0], c_size_t(len(texts)), *pointers[1:], message)
        function = self._shim.function("tokenizer_encode")
        return lambda: (function(*arguments), ends, ids, lengths)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = [text.encode() for text in texts]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.uint64)
        lengths, ids = np.zeros(len(texts), np.uint64), np.empty(len(texts) * self._max_length, np.int64)
        places = (array.ctypes.data for array in (ids, lengths))
        self._shim.call("tokenizer_encode", self._handle, b"".join(encoded), ends.ctypes.data, len(texts), *places)
        rows = np.split(ids, np.cumsum(lengths).astype(np.int64))
        return [row.tolist() for row in rows[:-1]]
