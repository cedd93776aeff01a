"""Closing: from any thread, at any time, more than once; a call ends with its result or with one error."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import align_runtime
from align_runtime import ConfigurationError, golden
from align_runtime.backends.onnxruntime import OnnxRuntimeRunner
from align_runtime.lifetime import Lifetime


def in_threads(*works: Any) -> list[Any]:
    """The results of `works`, each in a thread of its own; an error is its own result."""
    results: list[Any] = [None] * len(works)

    def call(index: int) -> None:
        try:
            results[index] = works[index]()
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=call, args=[index]) for index in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return results


def test_close_waits_for_calls_and_frees_once() -> None:
    lifetime, inside, leave, freed = Lifetime(), threading.Event(), threading.Event(), []

    def call() -> str:
        with lifetime.use():
            inside.set()
            assert leave.wait(30)
            assert freed == []
            return "result"

    def close() -> None:
        assert inside.wait(30)
        threading.Timer(0.1, leave.set).start()
        lifetime.close(lambda: freed.append(1))
        assert freed == [1]

    assert in_threads(call, close, close, close) == ["result", None, None, None]
    with pytest.raises(ConfigurationError, match="closed"), lifetime.use():
        pass
    lifetime.close(lambda: freed.append(2))
    assert freed == [1]


def test_a_thread_that_is_inside_itself_does_not_wait() -> None:
    lifetime, freed = Lifetime(), []
    with lifetime.use():
        lifetime.close(lambda: freed.append(1))
        assert freed == []
    assert freed == [1]


def test_an_error_of_freeing_is_raised_once() -> None:
    lifetime = Lifetime()
    with pytest.raises(ZeroDivisionError):
        lifetime.close(lambda: 1 // 0)  # type: ignore[arg-type]
    lifetime.close()


def test_close_while_other_threads_call(tiny_bundle: Path, answers: golden.Golden) -> None:
    model = align_runtime.load(tiny_bundle, threads=2)
    expected = {name: model.embed_texts(answers.texts[: 2 if name == "few" else None]) for name in ("few", "all")}

    def calls(count: int | None, name: str) -> str:
        while True:
            try:
                np.testing.assert_array_equal(model.embed_texts(answers.texts[:count]), expected[name])
            except ConfigurationError as error:
                return str(error)

    def images() -> str:
        while True:
            try:
                model.embed_images(answers.images)
            except ConfigurationError as error:
                return str(error)

    def close() -> None:
        time.sleep(0.2)
        model.close()

    said = in_threads(lambda: calls(2, "few"), lambda: calls(None, "all"), images, model.warmup, close, close, close)
    assert said[:3] == ["the model is closed; load the bundle again"] * 3
    assert said[4:] == [None] * 3
    for call in (lambda: model.embed_texts([]), lambda: model.preprocess([]), model.warmup):
        with pytest.raises(ConfigurationError, match="closed"):
            call()


def test_close_in_the_handler_of_a_signal(tiny_bundle: Path, answers: golden.Golden) -> None:
    """The handler runs in the main thread, in the middle of its own call."""
    model = align_runtime.load(tiny_bundle, threads=2)
    before = signal.signal(signal.SIGUSR1, lambda *_: model.close())
    try:
        threading.Timer(0.2, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)).start()
        with pytest.raises(ConfigurationError, match="closed"):
            list(model.iter_embed_texts(answers.texts[:1] * 10**6, batch_size=1))
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_threads_of_a_model_end_with_it(tiny_bundle: Path, answers: golden.Golden) -> None:
    def ours() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name.startswith("align-")}

    before = ours()
    model = align_runtime.load(tiny_bundle, streams=3)
    model.embed_images(answers.images)
    assert len(ours() - before) == 3
    started = ours() - before
    del model  # nobody closes it
    for thread in started:
        thread.join(30)
    assert ours() == before


@pytest.mark.parametrize(
    "words",
    [
        "[ONNXRuntimeError] : 1 : FAIL : Load model failed:std::bad_alloc",
        "BFCArena Failed to allocate memory for 4194304",
    ],
)
def test_memory_of_a_cpu(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """What ONNX Runtime says; `test_limits` has it say so."""
    runner = OnnxRuntimeRunner(tiny_bundle / "onnx/vision_model.onnx", 1)

    class Session:
        def run(self, *_: object) -> None:
            raise RuntimeError(words)

    monkeypatch.setattr(runner, "_session", Session())
    with pytest.raises(align_runtime.DeviceError, match="out of memory.*batch_size"):
        runner.run({"pixels": np.zeros((1, 2, 2, 3), np.uint8)})
