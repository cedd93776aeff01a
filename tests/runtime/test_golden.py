"""Golden arrays: read only when header and size agree, never unpickled."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from align_runtime import Bundle, BundleError, golden

FLOAT32 = np.dtype(np.float32)


def test_round_trip(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    np.testing.assert_array_equal(golden.read_array(tmp_path / "a.npy", FLOAT32, 2), values)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BundleError, match=r"\|O"):
        golden.read_array(tmp_path / "a.npy", FLOAT32, 1)


@pytest.mark.parametrize(
    ("values", "ndim"), [(np.zeros((2, 2), np.float64), 2), (np.zeros((2, 2), np.float32), 3),
                         (np.asfortranarray(np.ones((2, 3), np.float32)), 2)]
)  # fmt: skip
def test_another_type_or_shape(tmp_path: Path, values: np.ndarray, ndim: int) -> None:
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(BundleError, match=f"expected .* <f4 array of {ndim} dimensions, got "):
        golden.read_array(tmp_path / "a.npy", FLOAT32, ndim)


def test_a_header_that_claims_more_than_the_file_holds(tmp_path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 64), }"
    header += b" " * (64 - (len(header) + 11) % 64) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 16)
    with pytest.raises(BundleError, match=r"\(1000000000000, 64\) in 1[0-9] bytes"):
        golden.read_array(tmp_path / "a.npy", FLOAT32, 2)


def test_a_file_that_is_no_array(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"hello")
    with pytest.raises(BundleError, match=r"a\.npy"):
        golden.read_array(tmp_path / "a.npy", FLOAT32, 2)


def test_the_golden_vectors_of_a_bundle(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    answers = golden.read(bundle)
    height, width = bundle.manifest.preprocessing.output_size
    assert answers.pixels.shape == (len(answers.images), height, width, 3)
    assert "" in answers.texts
    assert not answers.pixels.flags.writeable  # read from the file's bytes
    for embeds in (answers.image_embeds, answers.text_embeds):
        np.testing.assert_allclose(np.linalg.norm(embeds, axis=1), 1, atol=1e-6)
