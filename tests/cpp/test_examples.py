"""The examples and the tool of the C++ runtime, run as a user does."""

from __future__ import annotations

import ctypes
import io
import json
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from align_runtime import Model
from support.native import LIBRARY, onnxruntime_library

BUILD = LIBRARY.parent
CLOSE = {"rtol": 0, "atol": 1e-6}
TEXTS = ["a photo of a green heart", 'a "white" star', "ünïcödé"]


@pytest.fixture(autouse=True)
def variable(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGN_ONNXRUNTIME_LIBRARY", str(onnxruntime_library()))


def run(program: str, *arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([BUILD / program, *arguments], input=stdin, capture_output=True, text=True, timeout=60)


def test_embed(tiny_bundle: Path, model: Model) -> None:
    done = run("example_embed", tiny_bundle, *TEXTS)
    rows = model.embed_texts(TEXTS)
    assert done.stdout.splitlines() == [f"{rows[0] @ row:.4f} {text}" for row, text in zip(rows, TEXTS, strict=True)]
    assert run("example_embed", "/nowhere", "a").returncode == 2


def test_classify(tiny_bundle: Path, tiny_checkpoint: Path, model: Model) -> None:
    image, labels = tiny_checkpoint / "demo/green-heart.png", ["green heart", "white star"]
    done = run("example_classify", tiny_bundle, image, *labels)
    expected = model.classify([image], labels)[0]
    for line, label, probability in zip(done.stdout.splitlines(), labels, expected, strict=True):
        assert line.partition(" ")[2] == label
        assert float(line.partition(" ")[0]) == pytest.approx(float(probability), abs=2e-4)
    assert run("example_classify", tiny_bundle, tiny_bundle / "align.json", "a").returncode == 1


def test_the_tool(tiny_bundle: Path, tiny_checkpoint: Path, model: Model, tmp_path: Path) -> None:
    image = tiny_checkpoint / "demo/green-heart.png"
    expected = np.concatenate([model.embed_texts(TEXTS[:2]), model.embed_images([image]), model.embed_texts(TEXTS[2:])])
    inputs = [f"text:{TEXTS[0]}", f"text:{TEXTS[1]}", str(image), f"text:{TEXTS[2]}"]
    lines = [json.loads(line) for line in run("align_embed", tiny_bundle, *inputs).stdout.splitlines()]
    assert [line["input"] for line in lines] == inputs
    np.testing.assert_allclose([line["embedding"] for line in lines], expected, **CLOSE)
    done = run("align_embed", tiny_bundle, "--npy", tmp_path / "rows.npy", "-", stdin="\n".join(inputs))
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "rows.npy"), expected, **CLOSE)
    assert run("align_embed", tiny_bundle).returncode == 2
    assert run("align_embed", tiny_bundle, "--precision", "fp8", "text:a").stderr.startswith(
        "align_embed: precision 'fp8'"
    )


@pytest.fixture
def service(tiny_bundle: Path) -> Iterator[str]:
    if not (BUILD / "example_serve").exists():
        pytest.skip("the example was built without cpp-httplib")
    process = subprocess.Popen([BUILD / "example_serve", tiny_bundle, "0"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.terminate()
    process.wait(10)


def post(url: str, data: bytes) -> np.ndarray:
    with urllib.request.urlopen(url, data, timeout=30) as answer:
        return np.array(json.load(answer)["embeddings"], np.float32)


def test_the_service(service: str, model: Model, tiny_checkpoint: Path) -> None:
    image = (tiny_checkpoint / "demo/green-heart.png").read_bytes()
    texts, images = model.embed_texts(TEXTS), model.embed_images([io.BytesIO(image)])
    problems: list[BaseException] = []

    def client() -> None:
        try:
            for _ in range(5):
                np.testing.assert_allclose(post(f"{service}/texts", "\n".join(TEXTS).encode()), texts, **CLOSE)
                np.testing.assert_allclose(post(f"{service}/image", image), images, **CLOSE)
        except BaseException as error:
            problems.append(error)

    clients = [threading.Thread(target=client) for _ in range(8)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    assert not problems
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(f"{service}/image", b"not an image")
    assert caught.value.code == 400
    assert "error" in json.load(caught.value)
