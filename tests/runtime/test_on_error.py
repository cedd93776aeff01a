"""An input that cannot be used: raised after everything that came before it, or skipped with its error."""

from __future__ import annotations

import io
import time
import zlib
from collections.abc import Iterator
from http.client import IncompleteRead
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pytest
from PIL import Image

import align_runtime
from align_runtime import ConfigurationError, EmbeddedRows, InputError, Model, golden, image_intake, text_embedding
from align_runtime.image_options import ImageOptions

CLOSE = 1e-5  # inputs share their batches with others


@pytest.fixture(scope="module", params=[1, 3], ids=["one stream", "three streams"])
def model(request: pytest.FixtureRequest, tiny_bundle: Path) -> Iterator[Model]:
    with align_runtime.load(tiny_bundle, threads=3, streams=request.param) as loaded:
        yield loaded


def unusable_images() -> list[Any]:
    """One of every kind, refused where it is taken or where it is decoded."""
    file = io.BytesIO()
    Image.effect_noise((90, 90), 50).save(file, "PNG")
    half, closed = file.getvalue()[:2000], io.BytesIO(b"x")
    closed.close()
    kinds = [b"", b"no image", half, bytearray(half), io.BytesIO(half), closed, Image.open(io.BytesIO(half))]
    return [*kinds, Path("missing.png"), "https://host/cat.jpg", None, 3, np.zeros((9, 9, 3)), np.zeros(9, np.uint8)]


def mixed(answers: golden.Golden, bad: list[Any]) -> tuple[list[Any], list[int]]:
    """Images, of which some are `bad`, and the positions of those."""
    items: list[Any] = []
    for index, item in enumerate(bad):
        items += [answers.images[index % len(answers.images)], item]
    return [*items, answers.images[0]], list(range(1, 2 * len(bad), 2))


@pytest.mark.parametrize("batch_size", [None, 1, 4, 100])
@pytest.mark.parametrize("source", [list, iter], ids=["list", "iterator"])
def test_images_that_cannot_be_used_are_skipped(
    model: Model, answers: golden.Golden, source: Any, batch_size: int | None
) -> None:
    items, places = mixed(answers, unusable_images())
    good = [index for index in range(len(items)) if index not in places]
    rows = model.embed_images(source(items), batch_size=batch_size, on_error="skip")
    assert rows.indices.dtype == np.int64
    assert rows.indices.tolist() == good
    assert [error.index for error in rows.errors] == places
    assert {type(error) for error in rows.errors} == {InputError}
    expected = model.embed_images([items[index] for index in good])
    np.testing.assert_allclose(rows.embeddings, expected, rtol=0, atol=CLOSE)
    for error in rows.errors:  # which would keep the images in memory
        assert error.__traceback__ is error.__cause__ is error.__context__ is None


@pytest.mark.parametrize("batch_size", [None, 3])
@pytest.mark.parametrize("bad", [0, 1, 5, 8, 12])
def test_what_came_before_is_yielded_and_then_the_error_raised(
    model: Model, answers: golden.Golden, bad: int, batch_size: int | None
) -> None:
    items = [answers.pixels[index % len(answers.pixels)] for index in range(20)]
    expected = model.embed_images(items)
    items[bad] = b"no image"  # type: ignore[call-overload]
    parts: list[EmbeddedRows] = []
    with pytest.raises(InputError) as caught:
        parts.extend(model.iter_embed_images(iter(items), batch_size=batch_size))
    assert caught.value.index == bad
    rows = EmbeddedRows.joined(parts, model.info.embedding_dim)
    assert rows.indices.tolist() == list(range(bad))
    assert rows.errors == ()
    assert all(len(part.indices) for part in parts)
    np.testing.assert_allclose(rows.embeddings, expected[:bad], rtol=0, atol=CLOSE)
    with pytest.raises(InputError) as caught:
        model.embed_images(items, batch_size=batch_size)
    assert caught.value.index == bad


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 13])
def test_an_error_of_the_stream_itself_follows_what_came_before(
    model: Model, answers: golden.Golden, count: int, on_error: Any
) -> None:
    class CameraError(Exception):
        pass

    def images() -> Iterator[Any]:
        yield from (answers.pixels[index % len(answers.pixels)] for index in range(count))
        raise CameraError

    def texts() -> Iterator[str]:
        yield from (answers.texts[index % len(answers.texts)] for index in range(count))
        raise CameraError

    for stream in (model.iter_embed_images(images(), on_error=on_error), model.iter_embed_texts(texts())):
        parts: list[EmbeddedRows] = []
        with pytest.raises(CameraError):
            parts.extend(stream)
        assert [index for part in parts for index in part.indices] == list(range(count))
    with pytest.raises(CameraError):
        model.preprocess(images())


def test_an_image_that_cannot_be_used_comes_before_a_later_error_of_the_stream(model: Model) -> None:
    def images() -> Iterator[bytes]:
        yield b"no image"
        raise RuntimeError

    with pytest.raises(InputError) as caught:
        list(model.iter_embed_images(images()))
    assert caught.value.index == 0
    parts: list[EmbeddedRows] = []
    with pytest.raises(RuntimeError):
        parts.extend(model.iter_embed_images(images(), on_error="skip"))
    assert [error.index for part in parts for error in part.errors] == [0]


def test_texts(model: Model, answers: golden.Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_embedding, "TEXT_WINDOW", 4)
    good = list(answers.texts[:8])
    expected = model.embed_texts(good)
    bad = {0: None, 3: 3, 4: "\ud800", 5: b"a cat", 9: "x" * 1_000_001}
    items: list[Any] = [bad[index] if index in bad else good.pop(0) for index in range(13)]
    rows = model.embed_texts(items, on_error="skip")
    assert rows.indices.tolist() == [index for index in range(13) if index not in bad]
    assert [error.index for error in rows.errors] == list(bad)
    np.testing.assert_allclose(rows.embeddings, expected, rtol=0, atol=CLOSE)
    assert all(error.__traceback__ is error.__context__ is None for error in rows.errors)
    parts: list[EmbeddedRows] = []
    with pytest.raises(InputError) as caught:
        parts.extend(model.iter_embed_texts(items[1:]))
    assert caught.value.index == 2
    assert [index for part in parts for index in part.indices] == [0, 1]
    np.testing.assert_allclose(parts[0].embeddings, expected[:2], rtol=0, atol=CLOSE)


def test_nothing_but_unusable_inputs_gives_no_rows(model: Model) -> None:
    for rows in (model.embed_images([b""] * 9, on_error="skip"), model.embed_texts([3], on_error="skip")):  # type: ignore[list-item]
        assert rows.embeddings.shape == (0, model.info.embedding_dim)
        assert rows.indices.shape == (0,)
        assert len(rows.errors) in (9, 1)
        assert repr(rows) == f"<align_runtime.EmbeddedRows 0 × {model.info.embedding_dim}, {len(rows.errors)} errors>"
    for call in (model.embed_images, model.embed_texts, model.iter_embed_images, model.iter_embed_texts):
        with pytest.raises(ConfigurationError, match="on_error is 'ignore'"):
            call([], on_error="ignore")  # type: ignore[call-overload]


def test_parts_have_an_upper_bound(model: Model, answers: golden.Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    items, _ = mixed(answers, [b""] * 20)
    for size, most in ((None, 8), (3, 3), (1000, len(items))):
        parts = model.iter_embed_images(items, batch_size=size, on_error="skip")
        sizes = [len(part.indices) + len(part.errors) for part in parts]
        assert sum(sizes) == len(items)
        assert max(sizes) <= most
    monkeypatch.setattr(text_embedding, "TEXT_WINDOW_CHARACTERS", 100)
    texts = ["a" * 60] * 5
    assert [len(part.indices) for part in model.iter_embed_texts(texts)] == [2, 2, 1]


def test_leaving_early_stops_the_work(model: Model, answers: golden.Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read, started or running after `close`, or after the loop was left."""
    running, ended, read = 0, 0, 0
    original = image_intake.decode

    def decode(image: Any, options: ImageOptions) -> Any:
        nonlocal running, ended
        running += 1
        time.sleep(0.01)
        ended += 1
        return original(image, options)

    def images() -> Iterator[Any]:
        nonlocal read
        while True:
            read += 1
            yield answers.pixels[0]

    monkeypatch.setattr(image_intake, "decode", decode)
    for leave in ("close", "break"):
        parts = model.iter_embed_images(images())
        for _part in parts:
            break
        if leave == "close":
            parts.close()
        del parts
        after = read
        deadline = time.monotonic() + 10
        while running != ended and time.monotonic() < deadline:
            time.sleep(0.01)
        assert running == ended
        before = ended
        time.sleep(0.1)
        assert (running, ended, read) == (before, before, after)
    assert len(model.embed_images([answers.pixels[0]])) == 1


@pytest.mark.parametrize(
    "error", [EOFError(), zlib.error("bad"), BadZipFile("bad"), IncompleteRead(b"x"), RuntimeError("bad"), KeyError(1)]
)
def test_a_file_object_that_raises_anything_costs_one_image(
    model: Model, answers: golden.Golden, error: Exception
) -> None:
    class Broken:
        def read(self, size: int = -1) -> bytes:
            raise error

    rows = model.embed_images(iter([answers.pixels[0], Broken(), answers.pixels[1]]), on_error="skip")
    assert rows.indices.tolist() == [0, 2]
    assert [found.index for found in rows.errors] == [1]
    assert rows.errors[0].message == f"the Broken cannot be read: {str(error) or type(error).__name__}"
