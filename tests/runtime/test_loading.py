"""Loading: what a model says of itself, single towers, the log, and errors on the way, which leave nothing open."""

from __future__ import annotations

import logging
from dataclasses import FrozenInstanceError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import align_runtime
from align_runtime import ConfigurationError, DeviceError, Model, golden
from align_runtime.backends.onnxruntime import INEXACT_WITHOUT_VNNI, has_vnni, sum_exactly
from align_runtime.text_embedding import TextEmbedder
from align_runtime.tokenizer import Tokenizer
from align_runtime.tower import Tower


def test_info(tiny_bundle: Path, model: Model, answers: golden.Golden) -> None:
    info, manifest = model.info, align_runtime.Bundle.open(tiny_bundle).manifest
    assert (info.name, info.revision) == ("align-tiny", None)
    assert info.embedding_dim == answers.text_embeds.shape[1] == manifest.model.embedding_dim
    assert info.image_size == answers.pixels.shape[1:3]
    assert (info.max_length, info.temperature) == (manifest.model.max_length, manifest.model.temperature)
    assert (info.precision, info.device, info.towers) == ("fp32", "cpu", ("vision", "text"))
    assert info.threads == info.streams >= 1
    with pytest.raises(FrozenInstanceError):
        info.device = "cuda"  # type: ignore[misc]
    with align_runtime.load(tiny_bundle, device="auto", threads=3, streams=1) as other:
        assert (other.info.device, other.info.threads, other.info.streams) == ("cpu", 3, 1)


@pytest.mark.parametrize(("name", "missing"), [("text", "vision"), ("vision", "text")])
def test_one_tower_alone(
    tiny_bundle: Path,
    model: Model,
    answers: golden.Golden,
    name: Any,
    missing: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "align_runtime"):
        single = align_runtime.load(tiny_bundle, towers=(name,))
    assert f"{name}_model" in caplog.text
    assert f"{missing}_model" not in caplog.text
    assert single.info.towers == (name,)
    assert [tower.graph.tower for tower in single._parts.towers] == [name]
    with single:
        single.warmup()
        np.testing.assert_array_equal(single.preprocess(answers.images), answers.pixels)
        texts, images = answers.texts, answers.images
        if name == "text":
            np.testing.assert_array_equal(single.embed_texts(texts), model.embed_texts(texts))
            calls = [
                lambda: single.embed_images(images),
                lambda: single.embed_pixels(answers.pixels),
                lambda: single.classify(images, ["cat"]),
            ]
        else:
            np.testing.assert_array_equal(single.embed_images(images), model.embed_images(images))
            calls = [lambda: single.embed_texts(texts), lambda: single.classify(images, ["cat"])]
        for call in calls:
            with pytest.raises(ConfigurationError, match=f"{missing} tower is not loaded.*towers="):
                call()
        assert single.logits(answers.image_embeds, answers.text_embeds).shape == (len(images), len(texts))


def test_towers_in_any_order_and_wrong_ones(tiny_bundle: Path, model: Model, answers: golden.Golden) -> None:
    with align_runtime.load(tiny_bundle, towers=["text", "vision", "text"]) as other:
        assert other.info.towers == ("vision", "text")
        np.testing.assert_array_equal(other.embed_texts(answers.texts), model.embed_texts(answers.texts))
    for towers in ((), "text", ("audio",), ("text", "audio"), None, 3, [["text"]]):
        with pytest.raises(ConfigurationError, match="towers is"):
            align_runtime.load(tiny_bundle, towers=towers)  # type: ignore[arg-type]


def test_loading_says_what_it_opened(tiny_bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "align_runtime"),
        align_runtime.load(tiny_bundle, threads=1, streams=2),
    ):
        pass
    (record,) = [record for record in caplog.records if record.name == "align_runtime.loading"]
    assert record.levelno == logging.INFO
    for word in ("onnx/vision_model.onnx", "onnx/text_model_cpu.onnx", str(tiny_bundle), "cpu", "threads: 1", " s"):
        assert word in record.getMessage()
    assert "streams: 2" in record.getMessage()


@pytest.mark.parametrize("error", [ConfigurationError("no"), KeyboardInterrupt(), MemoryError(), RuntimeError("no")])
@pytest.mark.parametrize("place", ["tower", "tokenizer", "embedder"])
def test_whatever_goes_wrong_while_loading_leaves_nothing_open(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, place: str
) -> None:
    opened: list[Tower] = []
    closed: list[Tower] = []
    open_tower, close_tower = Tower.open, Tower.close

    def fail(*_: object, **__: object) -> None:
        raise error

    def remember(*arguments: Any) -> Tower:
        if place == "tower" and arguments[1].tower == "text":
            raise error
        opened.append(open_tower(*arguments))
        return opened[-1]

    monkeypatch.setattr(Tower, "open", remember)
    monkeypatch.setattr(Tower, "close", lambda tower: (closed.append(tower), close_tower(tower)))
    if place == "tokenizer":
        monkeypatch.setattr(Tokenizer, "from_file", fail)
    elif place == "embedder":
        monkeypatch.setattr(TextEmbedder, "__init__", fail)
    with pytest.raises(DeviceError if isinstance(error, MemoryError) else type(error)):
        align_runtime.load(tiny_bundle)
    assert len(opened) == (1 if place == "tower" else 2)
    assert {id(tower) for tower in closed} == {id(tower) for tower in opened}


@pytest.mark.parametrize(
    ("flags", "found"), [("avx2 avx512f avx512_vnni", True), ("avx2 avx_vnni", True), ("avx2", False)]
)
def test_vnni_is_read_from_cpuinfo(tmp_path: Path, flags: str, found: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"model name\t: a processor\nflags\t\t: fpu {flags}\n")
    assert has_vnni(cpuinfo) is found
    assert has_vnni(tmp_path / "nowhere") is False


@pytest.mark.parametrize(("vnni", "value"), [(True, "0"), (False, "1")])
def test_sums_are_exact_without_vnni(monkeypatch: pytest.MonkeyPatch, vnni: bool, value: str) -> None:
    monkeypatch.setattr("align_runtime.backends.onnxruntime.has_vnni", lambda: vnni)
    entries: dict[str, str] = {}
    sum_exactly(SimpleNamespace(add_session_config_entry=entries.__setitem__))
    ((name, found),) = entries.items()
    assert found == value
    assert name in INEXACT_WITHOUT_VNNI  # what graphs say of themselves
