"""The public API as a user would call it. mypy checks the types; `test_public_api.py` runs it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import align_runtime
from align_runtime import AlignError, Device, EmbeddedRows, ImageInput, InputError, Model, ModelInfo

Embeddings = NDArray[np.float32]


def search(folder: Path, image: Path, texts: list[str], device: Device = "cpu") -> str:
    """The text of `texts` that fits `image` best."""
    with align_runtime.load(folder, precision="fp32", device=device, threads=1, streams=1) as model:
        assert_type(model, Model)
        scores = model.cosine(model.embed_images([image]), model.embed_texts(texts))
    assert_type(scores, Embeddings)
    return texts[int(scores.argmax())]


def embed_every_form(model: Model, file: Path) -> Embeddings:
    """Embeddings of one image in all forms that are accepted."""
    data = file.read_bytes()
    with file.open("rb") as stream, Image.open(file) as opened:
        array: NDArray[Any] = np.asarray(opened)
        forms: list[ImageInput] = [file, str(file), data, bytearray(data), memoryview(data), stream, BytesIO(data)]
        return model.embed_images([*forms, opened, array], batch_size=4)


def embed_in_two_steps(model: Model, images: Iterable[Path]) -> Embeddings:
    """Preprocessing and embedding apart, as in a pipeline of two stages."""
    pixels = model.preprocess(images)
    assert_type(pixels, NDArray[np.uint8])
    return model.embed_pixels(pixels)


def count_rows(model: Model, texts: Iterable[str], images: Iterable[ImageInput]) -> int:
    """Rows of two streams that are embedded with constant memory."""
    rows = sum(len(part.indices) for part in model.iter_embed_texts(texts, batch_size=16))
    return rows + sum(len(part.embeddings) for part in model.iter_embed_images(images))


def rows_and_errors(model: Model, images: Iterable[ImageInput], texts: Iterable[str]) -> dict[int, Any]:
    """The row of each image that can be used, and the message for each that cannot."""
    rows = model.embed_images(images, on_error="skip")
    assert_type(rows, EmbeddedRows)
    assert_type(model.embed_images([], on_error="raise"), Embeddings)
    assert_type(model.embed_texts(texts, on_error="skip"), EmbeddedRows)
    assert_type(model.embed_texts([]), Embeddings)
    found: dict[int, Any] = dict(zip(rows.indices.tolist(), rows.embeddings, strict=True))
    for error in rows.errors:
        assert_type(error, InputError)
        if error.index is not None:
            found[error.index] = error.message
    return found


def first_part(model: Model, images: Iterable[ImageInput]) -> EmbeddedRows:
    """The first part of a stream that is left early."""
    with closing(model.iter_embed_images(images, batch_size=2, on_error="skip")) as parts:
        return next(parts)


def best_labels(model: Model, images: list[Path], labels: list[str]) -> list[str]:
    """The most probable label of each image; an image that cannot be read is an error with its index."""
    try:
        probabilities = model.classify(images, labels, template="{}")
    except InputError as error:
        assert_type(error.index, int | None)
        logging.warning("image %s: %s", error.index, error)
        raise
    return [labels[int(row.argmax())] for row in probabilities]


def describe(folder: Path) -> ModelInfo | None:
    """Facts about the text tower alone; None where the bundle cannot be opened."""
    try:
        model = align_runtime.load(folder, towers=("text",), check_hashes=True)
    except AlignError as error:
        logging.warning("%s (exit code %d)", error, error.exit_code)
        return None
    model.warmup()
    model.close()
    assert_type(model.info.image_size, tuple[int, int])
    return model.info
