"""Ray Serve: the same application in a replica, with the queue of Ray in front of the model."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

import align_runtime
from align_runtime.errors import ConfigurationError
from support.running_service import NAME, data_uri, png, post, rows

pytestmark = [pytest.mark.slow, pytest.mark.ray]


@pytest.fixture(scope="module")
def address(cluster: Any, tiny_bundle: Path) -> Iterator[str]:
    from ray import serve

    from align_serving.http import app

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(app({"bundle": str(tiny_bundle), "max_items": "100", "max_queue": "100"}))
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


def test_rows_are_those_of_plain_calls_and_batched(address: str, tiny_bundle: Path) -> None:
    texts = [f"text {number}" for number in range(64)]
    with align_runtime.load(tiny_bundle, threads=1) as model, httpx.Client(base_url=address, timeout=60) as client:
        expected, image = model.embed_texts(texts), model.embed_images([png("green")])
        np.testing.assert_allclose(rows(post(client, input=texts)), expected, rtol=0, atol=1e-6)
        np.testing.assert_allclose(rows(post(client, input=data_uri(png("green")))), image, rtol=0, atol=1e-6)
        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(lambda text: post(client, input=text), texts))
        np.testing.assert_allclose(np.concatenate(list(map(rows, answers))), expected, rtol=0, atol=1e-6)
        lines = dict(line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if line[0] != "#")
        assert float(lines['align_batch_size_count{tower="text"}']) < 1 + len(texts)
        assert float(lines['align_batch_size_sum{tower="text"}']) == 2 * len(texts)


def test_errors_keep_their_form(address: str) -> None:
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=60)
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="other", input="a")
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model=NAME, input=["a"] * 101)
    assert refused.value.param == "input"
    assert client.models.list().data[0].id == NAME


WRONG: list[dict[str, Any]] = [
    {},
    {"bundle": "x", "colour": "red"},
    {"bundle": "x", "text_batch": "many"},
    {"bundle": "x", "text_batch": 0},
    {"bundle": "x", "max_queue": 1},
    {"bundle": "x", "fetch_hosts": "http://a"},
]


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_options_are_told_before_anything_starts(arguments: dict[str, Any]) -> None:
    from align_serving.http import app

    with pytest.raises(ConfigurationError):
        app(arguments)
