"""Forks, pickles and threads that outlive the main thread: a result or an error at once, never a hang.

Each case runs in a process of its own, which forks while other threads are in the middle of calls.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import align_runtime
from align_runtime import Model, golden

PROGRAM = """
import gc, os, signal, sys, threading, time
if sys.argv[3:]:
    import onnxruntime  # the user's own import, with its telemetry
import numpy as np
import align_runtime
from align_runtime import ConfigurationError

folder, action = sys.argv[1:3]
model = align_runtime.load(folder, threads=2)
model.warmup()
height, width = model.info.image_size
images = np.zeros((5, height, width, 3), np.uint8)
texts = ["a photo of a cat"] * 9
started = model.iter_embed_images(images)
next(started)
stop = threading.Event()

def call(embed, inputs):
    while not stop.is_set():
        embed(inputs)

threads = [
    threading.Thread(target=call, args=pair)
    for pair in ((model.embed_texts, texts), (model.embed_images, images), (model.embed_texts, texts[:1]))
]

def refused(work):
    try:
        work()
    except ConfigurationError as error:
        assert "before the fork" in str(error), error
    else:
        raise AssertionError("the child got a result")

def use():
    for work in (
        lambda: model.embed_texts(texts[:1]),
        lambda: model.embed_texts(texts),
        lambda: model.embed_images(images[:1]),
        lambda: model.embed_images(images),
        lambda: model.embed_pixels(images),
        lambda: model.preprocess(images),
        lambda: model.classify(images, ["cat"]),
        lambda: model.warmup(),
        lambda: list(model.iter_embed_texts(texts)),
        lambda: next(started),
    ):
        refused(work)
    assert model.info.towers == ("vision", "text")

def forget():
    global model, started
    del model, started
    gc.collect()

def load_again():
    with align_runtime.load(folder, threads=2) as fresh:
        np.testing.assert_array_equal(fresh.embed_texts(texts), expected)

expected = model.embed_texts(texts)
actions = {
    "use": use, "close": lambda: (model.close(), model.close()), "forget": forget, "exit": lambda: None,
    "load again": load_again,
}
for thread in threads:
    thread.start()
failed = []
for _ in range(3):
    time.sleep(0.05)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        threads.clear()
        actions[action]()
        sys.exit(0)  # through the interpreter's end
    _, status = os.waitpid(child, 0)
    if status:
        failed.append("hangs" if status == signal.SIGALRM else f"status {status}")
stop.set()
for thread in threads:
    thread.join()
np.testing.assert_allclose(model.embed_texts(texts), expected, rtol=0, atol=1e-5)  # the parent goes on
assert not failed, failed
print("done")
"""


def run_program(program: str, *arguments: str) -> str:
    """What `program` prints in a process of its own; it may take two minutes."""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("action", ["use", "close", "forget", "exit", "load again"])
def test_a_forked_child(tiny_bundle: Path, action: str) -> None:
    assert run_program(PROGRAM, str(tiny_bundle), action) == "done\n"


def test_a_forked_child_where_onnxruntime_was_imported_before(tiny_bundle: Path) -> None:
    assert run_program(PROGRAM, str(tiny_bundle), "exit", "import") == "done\n"


def embed_in_worker(model: Model, texts: list[str]) -> np.ndarray:
    return model.embed_texts(texts)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_model_sent_to_another_process(tiny_bundle: Path, model: Model, answers: golden.Golden, method: str) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        embeds = pool.submit(embed_in_worker, model, answers.texts).result(timeout=120)
    np.testing.assert_array_equal(embeds, model.embed_texts(answers.texts))


def test_pickles_and_copies_load_anew(
    tiny_bundle: Path, answers: golden.Golden, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tiny_bundle.parent)
    with align_runtime.load(tiny_bundle.name, towers=("text",), threads=2, streams=1, decode_threads=3) as first:
        expected = first.embed_texts(answers.texts)
        monkeypatch.chdir(tmp_path)  # the path was relative
        data = pickle.dumps(first)
        copies = [pickle.loads(data), copy.copy(first), copy.deepcopy(first)]
    for other in copies:
        with other:
            assert other.info == first.info
            assert other._parts.options == first._loaded.options
            np.testing.assert_array_equal(other.embed_texts(answers.texts), expected)


# ── threads ──────────────────────────────────────────────────────────────────────────────────────────────────────────

OUTLIVES = """
import sys, threading, time
import align_runtime

model = align_runtime.load(sys.argv[1], threads=2)
texts = ["a photo of a cat"] * 9
expected = model.embed_texts(texts) if sys.argv[2] == "warm" else None

def later():
    threading.main_thread().join()
    time.sleep(0.2)
    print(model.embed_texts(texts).shape, model.preprocess([bytes_of_image]).shape)
    model.close()

import io
from PIL import Image
stream = io.BytesIO()
Image.new("RGB", (40, 30)).save(stream, "PNG")
bytes_of_image = stream.getvalue()
threading.Thread(target=later).start()
"""


@pytest.mark.parametrize("pool", ["warm", "cold"])
def test_a_thread_that_outlives_the_main_thread(tiny_bundle: Path, model: Model, pool: str) -> None:
    dim, (height, width) = model.info.embedding_dim, model.info.image_size
    assert run_program(OUTLIVES, str(tiny_bundle), pool) == f"(9, {dim}) (1, {height}, {width}, 3)\n"


DAEMONS = """
import sys, threading, time
import align_runtime

model = align_runtime.load(sys.argv[1], threads=2)
texts = ["a photo of a cat"] * 9
reasons = set()

def call():
    try:
        while True:
            model.embed_texts(texts)
    except align_runtime.ConfigurationError as error:
        reasons.add(str(error))

import atexit
atexit.register(lambda: (time.sleep(0.5), print(*reasons)))
from align_runtime import lifetime  # registers later, so it runs before
atexit.unregister(lifetime._close_all)
atexit.register(lifetime._close_all)
for _ in range(3):
    threading.Thread(target=call, daemon=True).start()
time.sleep(0.5)
"""


def test_daemons_that_are_in_calls_when_the_interpreter_ends(tiny_bundle: Path) -> None:
    said = run_program(DAEMONS, str(tiny_bundle))
    assert said == "the interpreter is shutting down and has closed the model; call it before that\n"
