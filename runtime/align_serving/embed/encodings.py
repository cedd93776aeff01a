"""How embeddings are stored: ``--dtype``. What each costs in recall is measured, see docs/bulk.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

INT8_MAX = 127


@dataclass(frozen=True)
class Encoding:
    """A way to store rows.

    Attributes:
        dtype: of the stored values.
        width: the number of stored values of a row with `dim` components.
        encode: unit rows, float32 (n, dim), to stored values (n, width).
        decode: stored values and `dim` to unit rows, float32 (n, dim), as near as they are.
    """

    dtype: type[np.generic]
    width: Callable[[int], int]
    encode: Callable[[NDArray[np.float32]], NDArray[Any]]
    decode: Callable[[NDArray[Any], int], NDArray[np.float32]]


def _encode_int8(rows: NDArray[np.float32]) -> NDArray[np.int8]:
    """Each row scaled so that its largest component is ±127: its direction is kept, all that a cosine needs."""
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=np.finfo(np.float32).tiny)
    return np.rint(rows * (INT8_MAX / largest)).astype(np.int8)


def _unit(values: NDArray[Any], dim: int) -> NDArray[np.float32]:
    """`values` as float32 rows of unit length."""
    rows = values.reshape(-1, dim).astype(np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _encode_signs(rows: NDArray[np.float32]) -> NDArray[np.uint8]:
    """One bit for each component, 1 where it is positive, the first in the highest bit; zeros at the end."""
    return np.packbits(rows > 0, axis=1)


def _decode_signs(values: NDArray[Any], dim: int) -> NDArray[np.float32]:
    signs = np.unpackbits(values, axis=1, count=dim).astype(np.float32) * 2 - 1
    return signs / np.float32(np.sqrt(dim))


def _plain(dtype: type[np.generic]) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    return lambda rows: rows.astype(dtype, copy=False)


ENCODINGS = {
    "float32": Encoding(np.float32, lambda dim: dim, _plain(np.float32), lambda values, dim: values.reshape(-1, dim)),
    "float16": Encoding(np.float16, lambda dim: dim, _plain(np.float16), _unit),
    "int8": Encoding(np.int8, lambda dim: dim, _encode_int8, _unit),
    "binary": Encoding(np.uint8, lambda dim: -(-dim // 8), _encode_signs, _decode_signs),
}
