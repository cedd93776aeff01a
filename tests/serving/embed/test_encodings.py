"""How embeddings are stored: shapes, and how near what is read back is to what was written."""

from __future__ import annotations

import numpy as np
import pytest

from align_serving.embed.encodings import ENCODINGS

ROWS = np.random.default_rng(0).normal(size=(50, 100)).astype(np.float32)
ROWS /= np.linalg.norm(ROWS, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("name", "dtype", "width", "least_cosine"),
    [
        ("float32", "float32", 100, 1),
        ("float16", "float16", 100, 0.999999),
        ("int8", "int8", 100, 0.9999),
        ("binary", "uint8", 13, 0.7),
    ],
)
def test_round_trip(name: str, dtype: str, width: int, least_cosine: float) -> None:
    encoding = ENCODINGS[name]
    stored = encoding.encode(ROWS)
    assert (stored.dtype, stored.shape, encoding.width(100)) == (np.dtype(dtype), (50, width), width)
    assert encoding.dtype is stored.dtype.type
    back = encoding.decode(stored, 100)
    assert back.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(back, axis=1), 1, atol=1e-6)
    assert (back * ROWS).sum(axis=1).min() > least_cosine - 1e-6
    assert encoding.decode(encoding.encode(ROWS[:0]), 100).shape == (0, 100)


def test_binary_is_the_sign_of_each_component_from_the_highest_bit() -> None:
    row = np.array([[1, -1, 1, 1, -1, -1, -1, 1, 1, -1]], np.float32)
    assert ENCODINGS["binary"].encode(row).tolist() == [[0b10110001, 0b10000000]]


def test_int8_has_127_at_the_largest_component() -> None:
    assert ENCODINGS["int8"].encode(np.array([[0.5, -0.25, 0, 0.1]], np.float32)).tolist() == [[127, -64, 0, 25]]
