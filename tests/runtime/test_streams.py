"""Streams: parallel single-threaded runs for many inputs return what one run with all threads returns."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import align_runtime
from align_runtime import ConfigurationError, InputError, Model, golden, text_embedding
from align_runtime.backends.onnxruntime import OnnxRuntimeRunner
from align_runtime.load_options import LoadOptions
from align_runtime.processors import available_cores
from align_runtime.scheduling import stream_count
from align_runtime.tower import Tower
from align_runtime.tower_settings import TowerSettings

TOLERANCE = 1e-5  # texts share their batches with others


@pytest.fixture(scope="module")
def whole(tiny_bundle: Path) -> Iterator[Model]:
    """Without streams."""
    with align_runtime.load(tiny_bundle, streams=1) as model:
        yield model


@pytest.fixture(scope="module")
def streamed(tiny_bundle: Path) -> Iterator[Model]:
    """With three streams, whatever the number of cores."""
    with align_runtime.load(tiny_bundle, streams=3) as model:
        yield model


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 20])
def test_streams_change_no_image(whole: Model, streamed: Model, answers: golden.Golden, count: int) -> None:
    images = [answers.images[index % len(answers.images)] for index in range(count)]
    embeds = streamed.embed_images(iter(images))
    np.testing.assert_allclose(embeds, whole.embed_images(images), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(embeds, streamed.embed_images(images))
    pixels = answers.pixels[np.arange(count) % len(answers.pixels)]
    np.testing.assert_allclose(streamed.embed_pixels(pixels), whole.embed_pixels(pixels), rtol=0, atol=1e-6)


@pytest.mark.parametrize("count", [1, 5, 6, 100])
def test_streams_change_no_text(whole: Model, streamed: Model, answers: golden.Golden, count: int) -> None:
    texts = [answers.texts[index % len(answers.texts)] for index in range(count)]
    embeds = streamed.embed_texts(texts)
    np.testing.assert_allclose(embeds, whole.embed_texts(texts), rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(embeds, streamed.embed_texts(texts))


def test_many_inputs_go_through_streams_and_one_does_not(
    streamed: Model, answers: golden.Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    original = Tower.run_stream

    def run_stream(tower: Tower, inputs: Any) -> Any:
        threads.append(threading.current_thread().name)
        return original(tower, inputs)

    monkeypatch.setattr(Tower, "run_stream", run_stream)
    streamed.embed_images(answers.images[:2])
    streamed.embed_texts(answers.texts[:5])
    assert threads == []
    streamed.embed_images(answers.images[:3])
    streamed.embed_texts(answers.texts[:6])
    assert len(threads) == 3 + 3
    assert all(name.startswith("align") for name in threads)


def test_the_number_of_threads_changes_no_bit(tiny_bundle: Path, answers: golden.Golden) -> None:
    """So streams return what one run of the same batch returns."""
    bundle = align_runtime.Bundle.open(tiny_bundle)
    batches = {
        "vision": {"pixels": answers.pixels},
        "text": {"input_ids": answers.input_ids, "attention_mask": answers.attention_mask},
    }
    for name, inputs in batches.items():
        tower = Tower.open(
            bundle, bundle.graph(name, "fp32", "cpu"), TowerSettings(threads=2, streams=2), LoadOptions()
        )
        np.testing.assert_array_equal(tower.run(inputs), tower.run_stream(inputs))
        tower.close()


def test_errors_name_their_place_whatever_thread_finds_them(streamed: Model, answers: golden.Golden) -> None:
    images = [*answers.images, b"no image", *answers.images, b"nor this"]
    for _ in range(5):
        with pytest.raises(InputError) as caught:
            streamed.embed_images(images)
        assert caught.value.index == len(answers.images)


def test_an_endless_stream_of_images_is_read_a_little_ahead(streamed: Model, answers: golden.Golden) -> None:
    taken = 0

    def images() -> Iterator[np.ndarray]:
        nonlocal taken
        while True:
            taken += 1
            yield answers.pixels[taken % len(answers.pixels)]

    parts = streamed.iter_embed_images(images())
    for _ in range(10):
        assert next(parts).embeddings.shape == (1, streamed.info.embedding_dim)
    assert taken <= 10 + 2 * 3 + 1


def test_texts_are_read_window_by_window(
    streamed: Model, answers: golden.Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_embedding, "TEXT_WINDOW", 7)
    texts = iter(answers.texts)
    parts = streamed.iter_embed_texts(texts)
    first = next(parts)
    assert first.indices.tolist() == list(range(7))
    assert next(texts) == answers.texts[7]
    expected = streamed.embed_texts(answers.texts[:7])
    np.testing.assert_array_equal(first.embeddings, expected)
    with pytest.raises(InputError) as caught:
        streamed.embed_texts(["a"] * 9 + [3])  # type: ignore[list-item]
    assert caught.value.index == 9


def test_a_model_that_is_closed_meanwhile(tiny_bundle: Path, answers: golden.Golden) -> None:
    model = align_runtime.load(tiny_bundle, streams=2)
    parts = model.iter_embed_images([*answers.images] * 4)
    next(parts)
    model.close()
    with pytest.raises(ConfigurationError, match="closed"):
        list(parts)


def test_numbers_of_streams() -> None:
    assert stream_count("cpu", None, None) == available_cores()
    assert stream_count("cpu", 5, None) == 5
    assert stream_count("cpu", 5, 2) == 2
    assert stream_count("cuda", None, None) == stream_count("cuda", None, 1) == 1
    with pytest.raises(ConfigurationError, match="streams is 2.*cuda"):
        stream_count("cuda", None, 2)
    for streams in (0, -1, True, "2", 1.5, 10**6):
        with pytest.raises(ConfigurationError, match=f"streams is {streams!r}"):
            stream_count("cpu", None, streams)  # type: ignore[arg-type]


def test_a_wrong_number_of_streams_leaves_nothing_open(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    monkeypatch.setattr(OnnxRuntimeRunner, "__init__", lambda runner, file, *_: opened.append(file))
    monkeypatch.setattr(OnnxRuntimeRunner, "close", lambda runner: opened.pop())
    with pytest.raises(ConfigurationError, match="streams is 0"):
        align_runtime.load(tiny_bundle, streams=0)
    assert opened == []


def test_auto_logs_its_choice(tiny_bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), align_runtime.load(tiny_bundle, device="auto") as model:
        assert len(model.embed_texts(["a cat"])) == 1
        assert model.info.device == "cpu"
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("align_runtime.devices", logging.WARNING)
    assert "'auto' is cpu" in record.getMessage()
    caplog.clear()
    with align_runtime.load(tiny_bundle, device="cpu"):
        assert caplog.text == ""
