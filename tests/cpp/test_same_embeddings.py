"""The C++ runtime's embeddings are those of the Python runtime, on the same ONNX Runtime and number of threads."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

import align_runtime
from align_runtime import Model
from support.native import NativeModel

CLOSE = {"rtol": 0, "atol": 1e-6}
WORDS = "a photo of a green heart and the white star of seven handwritten circles".split()
COUNTS = (1, 2, 3, 4, 7, 8, 9, 33, 100)  # one, fewer than streams, as many, more; one batch and several


def made_texts(count: int) -> list[str]:
    draw = np.random.default_rng(count)
    return [" ".join(draw.choice(WORDS, size=draw.integers(1, 40))) for _ in range(count)]


def made_images(count: int) -> list[np.ndarray]:
    """Images of many sizes, with 1, 3 and 4 channels; every third has rows that are apart."""
    draw, images = np.random.default_rng(count), []
    for index in range(count):
        height, width = draw.integers(1, 200, size=2)
        image = draw.integers(0, 256, (height, width + index % 3, (3, 1, 4)[index % 3]), dtype=np.uint8)
        images.append(image[:, :width])
    return images


@pytest.mark.parametrize("count", COUNTS)
def test_texts(model: Model, native: NativeModel, count: int) -> None:
    texts = made_texts(count)
    np.testing.assert_allclose(native.embed_texts(texts), model.embed_texts(texts), **CLOSE)


@pytest.mark.parametrize("count", COUNTS)
def test_images(model: Model, native: NativeModel, count: int) -> None:
    images = made_images(count)
    np.testing.assert_allclose(native.embed_images(images), model.embed_images(images), **CLOSE)


def test_files(model: Model, native: NativeModel, tiny_checkpoint: Path) -> None:
    paths = sorted((tiny_checkpoint / "demo").iterdir())
    files = [path.read_bytes() for path in paths if path.suffix in {".png", ".jpg"}]
    assert len(files) > 5
    np.testing.assert_allclose(native.embed_encoded(files), model.embed_images(files), **CLOSE)


def test_pixels(model: Model, native: NativeModel) -> None:
    images = made_images(9)
    pixels = model.preprocess(images)
    np.testing.assert_array_equal(np.stack([native.preprocess(image) for image in images]), pixels)
    for count in (1, 2, 9):
        np.testing.assert_allclose(native.embed_pixels(pixels[:count]), model.embed_pixels(pixels[:count]), **CLOSE)


def test_logits(model: Model, native: NativeModel) -> None:
    images, texts = model.embed_images(made_images(5)), model.embed_texts(made_texts(4))
    np.testing.assert_allclose(native.logits(images, texts), model.logits(images, texts), rtol=1e-5)


def test_facts(model: Model, native: NativeModel) -> None:
    info = model.info
    assert native.dim == info.embedding_dim
    assert native.image_size == info.image_size
    assert native.library.align_max_length(native.handle) == info.max_length


def test_nothing_to_embed(native: NativeModel) -> None:
    assert native.embed_texts([]).shape == native.embed_images([]).shape == (0, native.dim)
    assert native.embed_encoded([]).shape == (0, native.dim)


@pytest.mark.parametrize(("threads", "streams"), [(1, 0), (2, 1), (2, 3), (3, 0)])
def test_threads_and_streams(library: ctypes.CDLL, tiny_bundle: Path, threads: int, streams: int) -> None:
    texts, images = made_texts(40), made_images(11)
    with (
        align_runtime.load(tiny_bundle, threads=threads, streams=streams or None) as model,
        NativeModel(library, tiny_bundle, threads=threads, streams=streams) as native,
    ):
        np.testing.assert_allclose(native.embed_texts(texts), model.embed_texts(texts), **CLOSE)
        np.testing.assert_allclose(native.embed_images(images), model.embed_images(images), **CLOSE)


def same_in(library: ctypes.CDLL, bundle: Path, precision: str) -> None:
    texts, images = made_texts(20), made_images(5)
    with (
        align_runtime.load(bundle, precision=precision) as model,
        NativeModel(library, bundle, precision=precision, check_hashes=1) as native,
    ):
        np.testing.assert_allclose(native.embed_texts(texts), model.embed_texts(texts), **CLOSE)
        np.testing.assert_allclose(native.embed_images(images), model.embed_images(images), **CLOSE)


def test_fp16(library: ctypes.CDLL, tiny_fp16_bundle: Path) -> None:
    same_in(library, tiny_fp16_bundle, "fp16")


@pytest.mark.parametrize("precision", ["int8", "int8_cpu"])
def test_int8(library: ctypes.CDLL, tiny_int8_bundle: Path, precision: str) -> None:
    same_in(library, tiny_int8_bundle, precision)


def test_one_tower(library: ctypes.CDLL, tiny_bundle: Path, model: Model) -> None:
    texts, images = made_texts(3), made_images(3)
    with NativeModel(library, tiny_bundle, towers="text") as native:
        np.testing.assert_allclose(native.embed_texts(texts), model.embed_texts(texts), **CLOSE)
        with pytest.raises(align_runtime.ConfigurationError, match="the vision tower is not loaded"):
            native.embed_images(images)
    with NativeModel(library, tiny_bundle, towers="vision") as native:
        np.testing.assert_allclose(native.embed_images(images), model.embed_images(images), **CLOSE)
        with pytest.raises(align_runtime.ConfigurationError, match="the text tower is not loaded"):
            native.tokenize("a")
