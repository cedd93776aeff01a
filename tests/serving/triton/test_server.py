"""Models of the Python backend on a real server: strings and encoded images in, the reference's embeddings out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align_runtime.golden import Golden
from align_serving.triton.command import main
from support.triton_server import TritonServer

grpc = pytest.importorskip("tritonclient.grpc")
http = pytest.importorskip("tritonclient.http")
pytestmark = pytest.mark.triton
CLIENTS = {"http": http, "grpc": grpc}
LIMIT = 5e-5  # of FP32 graphs, as in align_exporter.variants


def ask(server: TritonServer, protocol: str, model: str, values: Sequence[bytes], **options: Any) -> Any:
    """The answer of `model` to one request with `values`."""
    client = CLIENTS[protocol].InferenceServerClient(getattr(server, protocol))
    return ask_by(client, protocol, model, values, **options)


def ask_by(client: Any, protocol: str, model: str, values: Sequence[bytes], **options: Any) -> Any:
    tensor = CLIENTS[protocol].InferInput(
        {"align_texts": "TEXT", "align_images": "IMAGE"}[model], [len(values), 1], "BYTES"
    )
    tensor.set_data_from_numpy(np.array(values, dtype=np.object_).reshape(-1, 1))
    return client.infer(model, [tensor], **options)


@pytest.mark.parametrize("protocol", CLIENTS)
def test_golden_embeddings(server: TritonServer, golden_rows: Golden, protocol: str) -> None:
    texts = [text.encode() for text in golden_rows.texts[:32]]
    found = ask(server, protocol, "align_texts", texts).as_numpy("EMBEDDING")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, golden_rows.text_embeds[:32], rtol=0, atol=LIMIT)
    images = [path.read_bytes() for path in golden_rows.images]
    found = ask(server, protocol, "align_images", images).as_numpy("EMBEDDING")
    np.testing.assert_allclose(found, golden_rows.image_embeds, rtol=0, atol=LIMIT)


@pytest.mark.parametrize("protocol", CLIENTS)
def test_a_bad_image_fails_its_own_request_alone(server: TritonServer, golden_rows: Golden, protocol: str) -> None:
    """Sent at once until Triton has put a bad one into a batch with good ones."""
    good = [path.read_bytes() for path in golden_rows.images[:3]]
    requests = [*good, b"no image", good[0][:200], b"", *good]
    expected = [*golden_rows.image_embeds[:3], None, None, None, *golden_rows.image_embeds[:3]]
    before = counts(server, "align_images")

    def answer(value: bytes) -> Any:
        try:
            return ask(server, protocol, "align_images", [value]).as_numpy("EMBEDDING")[0]
        except (grpc.InferenceServerException, http.InferenceServerException) as error:
            return error

    with ThreadPoolExecutor(len(requests)) as pool:
        for _ in range(5):
            for found, row in zip(pool.map(answer, requests), expected, strict=True):
                if row is None:
                    assert "input 0: the image of" in found.message()
                    assert "INVALID_ARGUMENT" in str(found.status()) or found.status() == "400"
                else:
                    np.testing.assert_allclose(found, row, rtol=0, atol=LIMIT)
    requested, runs = np.subtract(counts(server, "align_images"), before)
    assert requested == 5 * len(requests)
    assert runs < requested


@pytest.mark.parametrize("protocol", CLIENTS)
def test_a_bad_row_among_others_is_named_or_skipped(server: TritonServer, golden_rows: Golden, protocol: str) -> None:
    values = [golden_rows.images[0].read_bytes(), b"no image", golden_rows.images[1].read_bytes()]
    with pytest.raises(Exception, match="input 1: the image of 8 bytes"):
        ask(server, protocol, "align_images", values)
    found = ask(server, protocol, "align_images", values, parameters={"on_error": "skip"})
    np.testing.assert_allclose(found.as_numpy("EMBEDDING")[[0, 2]], golden_rows.image_embeds[:2], rtol=0, atol=LIMIT)
    assert not found.as_numpy("EMBEDDING")[1].any()
    (first,), (reason,), (last,) = found.as_numpy("ERROR")
    assert (first, last) == (b"", b"")
    assert reason.startswith(b"the image of 8 bytes is not an image")


def test_texts_that_are_not_utf8_and_unknown_parameters(server: TritonServer) -> None:
    with pytest.raises(http.InferenceServerException, match="input 1: the text is not UTF-8"):
        ask(server, "http", "align_texts", [b"a cat", b"\xff"])
    with pytest.raises(http.InferenceServerException, match="on_error is 'ignore'; expected 'raise' or 'skip'"):
        ask(server, "http", "align_texts", [b"a cat"], parameters={"on_error": "ignore"})


def test_texts_of_many_clients_run_in_batches(server: TritonServer, golden_rows: Golden) -> None:
    before = counts(server, "align_texts")
    texts = [golden_rows.texts[index % len(golden_rows.texts)] for index in range(320)]
    client = grpc.InferenceServerClient(server.grpc)
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda text: ask_by(client, "grpc", "align_texts", [text.encode()]), texts))
    for index, answer in enumerate(answers):
        row = golden_rows.text_embeds[index % len(golden_rows.texts)]
        np.testing.assert_allclose(answer.as_numpy("EMBEDDING")[0], row, rtol=0, atol=LIMIT)
    requested, runs = np.subtract(counts(server, "align_texts"), before)
    assert requested == 320
    assert runs <= requested / 2


def test_golden_inputs_warm_a_model_up(server: TritonServer) -> None:
    """Warm-ups are no requests: Triton says in its log that it has run them, or why it could not."""
    assert "failed to run warmup sample" not in server.log.read_text(errors="replace")
    config = http.InferenceServerClient(server.http).get_model_config("align_texts")
    assert [entry["batch_size"] for entry in config["model_warmup"]] == [1, 32]


def test_a_new_version_takes_over_without_a_failed_request(
    server: TritonServer, string_repository: Path, tiny_bundle: Path, golden_rows: Golden
) -> None:
    versions: list[tuple[str, float]] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def client(number: int) -> None:
        own = grpc.InferenceServerClient(server.grpc)
        while not stop.is_set():
            row = number % len(golden_rows.texts)
            try:
                answer = ask_by(own, "grpc", "align_texts", [golden_rows.texts[row].encode()])
                distance = float(np.abs(answer.as_numpy("EMBEDDING")[0] - golden_rows.text_embeds[row]).max())
                versions.append((answer.get_response().model_version, distance))
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=client, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    try:
        options = ["--threads", "1", "--quiet", "--towers", "text"]
        assert main([str(tiny_bundle), str(string_repository), *options]) == 0
        control = grpc.InferenceServerClient(server.grpc)
        control.load_model("align_texts")
        reached = len(versions)
        while len(versions) < reached + 50 and not failures:
            stop.wait(0.05)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert max(distance for _, distance in versions) < LIMIT
    assert {version for version, _ in versions} == {"1", "2"}
    assert {version for version, _ in versions[-20:]} == {"2"}
    assert control.is_model_ready("align_images", "1")


def counts(server: TritonServer, model: str) -> tuple[float, float]:
    """Rows that `model` has answered or failed, and the batches that they ran in."""
    failed = server.metric("nv_inference_request_failure", model)
    return server.metric("nv_inference_request_success", model) + failed, server.metric(
        "nv_inference_exec_count", model
    )
