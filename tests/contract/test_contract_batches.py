"""Contract: images and texts go out in the batches that the engine was built for, two at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import align_runtime
from align_runtime import Model, golden
from align_runtime.backends.tensorrt.lane import Lane
from align_runtime.backends.tensorrt.runner import LANES, TensorRtRunner
from align_runtime.bundle import Bundle
from align_runtime.golden import Golden
from support.gpu_doubles import installed

CLOSE = 1e-5


@pytest.fixture
def model(engine_bundle: Path) -> Iterator[Model]:
    """With engines for batches of 1 and 4."""
    with installed("tensorrt-11"), align_runtime.load(engine_bundle, precision="fp16", device="tensorrt") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def answers(engine_bundle: Path) -> Golden:
    return golden.read(Bundle.open(engine_bundle))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of every run."""
    rows: list[int] = []
    original = TensorRtRunner.run

    def run(runner: TensorRtRunner, inputs: Any) -> Any:
        rows.append(len(next(iter(inputs.values()))))
        return original(runner, inputs)

    monkeypatch.setattr(TensorRtRunner, "run", run)
    return rows


@pytest.mark.parametrize(
    ("count", "batch_size", "rows"),
    [
        (16, None, [4, 4, 4, 4]),
        (10, None, [4, 4, 2]),
        (9, 100, [4, 4, 1]),  # capped by the largest batch of the engine
        (7, 3, [3, 3, 1]),
        (3, 1, [1, 1, 1]),
        (2, None, [2]),
        (1, None, [1]),
        (0, None, []),
    ],
)
def test_contract_batches_fill_the_engine(
    model: Model, answers: Golden, runs: list[int], count: int, batch_size: int | None, rows: list[int]
) -> None:
    order = np.arange(count) % len(answers.pixels)
    expected = model.embed_pixels(model.preprocess(answers.pixels))[order]
    runs.clear()
    np.testing.assert_allclose(
        model.embed_images(iter(answers.pixels[order]), batch_size=batch_size), expected, rtol=0, atol=CLOSE
    )
    assert sorted(runs, reverse=True) == rows
    texts = [answers.texts[index % len(answers.texts)] for index in range(count)]
    runs.clear()
    assert len(model.embed_texts(texts, batch_size=batch_size)) == count
    assert sorted(runs, reverse=True) == rows


def test_contract_two_batches_are_in_flight(model: Model, answers: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is collected only when another one was submitted to the other lane."""
    images, texts = [answers.pixels[index % len(answers.pixels)] for index in range(24)], [*answers.texts[:8]]
    expected = model.embed_images(images), model.embed_texts(texts)
    both, lanes = threading.Barrier(LANES), list[Lane]()
    original = Lane.collect

    def collect(lane: Lane) -> Any:
        both.wait(30)
        lanes.append(lane)
        return original(lane)

    monkeypatch.setattr(Lane, "collect", collect)
    np.testing.assert_allclose(model.embed_images(images), expected[0], rtol=0, atol=CLOSE)
    assert len(lanes) == 6
    np.testing.assert_allclose(model.embed_texts(texts), expected[1], rtol=0, atol=CLOSE)
    assert len(lanes) == 8
    assert len(set(lanes[:6])) == len(set(lanes[6:])) == LANES


def test_contract_an_image_that_cannot_be_used_leaves_its_batch_alone(model: Model, answers: Golden) -> None:
    images: list[Any] = [*answers.pixels[:3], b"no image", *answers.pixels[3:6]]
    rows = model.embed_images(images, on_error="skip")
    assert rows.indices.tolist() == [0, 1, 2, 4, 5, 6]
    assert [error.index for error in rows.errors] == [3]
    np.testing.assert_allclose(rows.embeddings, model.embed_images(answers.pixels[:6]), rtol=0, atol=CLOSE)


def test_contract_leaving_early_returns_the_lanes(model: Model, answers: Golden) -> None:
    images = [answers.pixels[index % len(answers.pixels)] for index in range(40)]
    parts = model.iter_embed_images(images)
    assert next(parts).indices.tolist() == [0, 1, 2, 3]
    parts.close()
    assert len(model.embed_images(images)) == 40
