"""Limits: body, items, time, queue and connections, each with its status, and a service that goes on."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from align_runtime.errors import ConfigurationError
from align_serving.http.limits import Limits
from align_serving.http.opening import Opened, ServiceOptions, application
from support.running_service import body_of, data_uri, png, post, raw_post, rows, running


@contextlib.contextmanager
def served(opened: Opened, limits: Limits, **options: Any) -> Iterator[httpx.Client]:
    with (
        running(application(opened, ServiceOptions(limits=limits, **options)), limits) as address,
        httpx.Client(base_url=address, timeout=20) as client,
    ):
        yield client


def address_of(client: httpx.Client) -> str:
    return str(client.base_url).rstrip("/")


class Held:
    """Makes the text tower wait, so that requests queue."""

    def __init__(self, opened: Opened, patch: pytest.MonkeyPatch) -> None:
        self.go, self.entered, self.calls = threading.Event(), threading.Semaphore(0), list[int]()
        original = opened.towers.embed_texts

        def embed(texts: Any) -> Any:
            self.calls.append(len(texts))
            self.entered.release()
            self.go.wait(20)
            return original(texts)

        patch.setattr(opened.towers.__class__, "embed_texts", lambda _, texts: embed(texts))


@pytest.fixture
def held(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    held = Held(opened, monkeypatch)
    yield held
    held.go.set()


@pytest.mark.parametrize(
    "values",
    [{"items": 0}, {"items": 1.5}, {"body_seconds": float("nan")}, {"connections": True}, {"items": 99999},
     {"body_bytes": 1 << 40}],
)  # fmt: skip
def test_limits_that_cannot_be(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Limits(**values)


def test_a_request_with_too_much_is_refused(make_client: Any) -> None:
    client = make_client(limits=Limits(body_bytes=2000, items=3, characters=10))
    assert post(client, input=["a"] * 3).status_code == 200
    assert post(client, input=["a"] * 4).json()["error"]["param"] == "input"
    assert "11 characters" in post(client, input=["a", "b" * 11]).json()["error"]["message"]
    assert post(client, "/v1/classify", input=data_uri(png()), labels=["a", "b", "c"], template="{}").status_code == 400
    large = post(client, input=["a" * 3000])
    assert (large.status_code, large.headers["connection"]) == (413, "close")
    chunked = client.post(
        "/v1/embeddings", content=iter([b" " * 500] * 5), headers={"content-type": "application/json"}
    )
    assert chunked.status_code == 413


def test_an_image_with_too_many_pixels_is_refused(opened: Opened, client: httpx.Client) -> None:
    limit = opened.facts.info.image_options.max_pixels
    answer = post(client, input=data_uri(png(size=(8200, limit // 8200 + 1))))
    assert answer.status_code == 400
    assert f"at most {limit}" in answer.json()["error"]["message"]


def test_a_body_below_the_limit_is_read_whatever_the_framework_allows(client: httpx.Client) -> None:
    spaces = b" " * (31 << 20)
    answer = client.post(
        "/v1/embeddings", content=spaces + body_of(input="a"), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 200


def test_a_body_that_claims_too_much_is_refused_before_it_is_sent(opened: Opened) -> None:
    with served(opened, Limits(body_bytes=1000)) as client:
        connected, _ = raw_post(address_of(client), b"x" * 5000)
        assert connected.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_slow_body_is_cut_off_and_others_are_served_meanwhile(opened: Opened) -> None:
    with served(opened, Limits(body_seconds=0.5)) as client:
        connected, body = raw_post(address_of(client), body_of(input="a cat"))
        connected.sendall(body[:5])
        assert post(client, input="a cat").status_code == 200
        assert connected.recv(4096).startswith(b"HTTP/1.1 408 ")
        assert "align_waiting_bytes 0.0" in client.get("/metrics").text


def test_a_slow_or_endless_head_is_cut_off(opened: Opened) -> None:
    with served(opened, Limits(head_seconds=0.3)) as client:
        connected, _ = raw_post(address_of(client), b"", extra="x-slow: ")  # a head, for what follows
        connected.close()
        host, port = address_of(client).removeprefix("http://").split(":")
        for sent in (b"", b"POST /v1/embeddings HTTP/1.1\r\nhost:"):
            slow = socket.create_connection((host, int(port)), timeout=10)
            slow.sendall(sent)
            assert slow.recv(100) == b""
        endless = socket.create_connection((host, int(port)), timeout=10)
        with contextlib.suppress(ConnectionError):
            endless.sendall(b"GET / HTTP/1.1\r\n")
            for _ in range(40):
                endless.sendall(b"x: " + b"y" * 10_000 + b"\r\n")
        with contextlib.suppress(ConnectionError):
            assert endless.recv(100).startswith((b"HTTP/1.1 400 ", b""))
        assert post(client, input="a cat").status_code == 200


def test_a_full_queue_is_429_with_retry_after(opened: Opened, held: Held) -> None:
    limits = Limits(items=4, queue_items=4)
    with served(opened, limits) as client, ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(post, client, input=["a", "b", "c"])
        held.entered.acquire()
        refused = post(client, input=["a", "b"])
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["error"]["code"] == "queue_full"
        assert client.get("/healthz").status_code == 200
        held.go.set()
        assert len(rows(waiting.result())) == 3
        assert len(rows(post(client, input=["a", "b"]))) == 2


def test_bodies_that_wait_are_bounded_together(opened: Opened, held: Held) -> None:
    with served(opened, Limits(body_bytes=2000, queue_bytes=3000)) as client, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(post, client, input="a" * 1800)
        held.entered.acquire()
        assert post(client, input="a" * 1800).status_code == 429
        held.go.set()
        assert waiting.result().status_code == 200
        assert post(client, input="a" * 1800).status_code == 200


def test_an_answer_that_takes_too_long_is_503(opened: Opened, held: Held) -> None:
    with served(opened, Limits(request_seconds=0.3)) as client:
        answer = post(client, input="a")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "timeout")
        assert int(answer.headers["retry-after"]) >= 1
        held.go.set()


def test_a_client_that_has_gone_frees_its_place(opened: Opened, held: Held) -> None:
    with served(opened, Limits(), runs=1) as client:
        busy, body = raw_post(address_of(client), body_of(input=["a"] * 5))
        busy.sendall(body)
        held.entered.acquire()
        gone, body = raw_post(address_of(client), body_of(input=["b"] * 7))
        gone.sendall(body)
        await_line(client, "align_waiting_items 12.0")
        gone.close()
        await_line(client, "align_waiting_items 5.0")
        held.go.set()
        assert b" 200 " in busy.recv(4096)
        assert held.calls == [5]


def await_line(client: httpx.Client, line: str) -> None:
    end = time.monotonic() + 10
    while line not in client.get("/metrics").text.splitlines():
        assert time.monotonic() < end, line
        time.sleep(0.02)


def test_connections_are_bounded(opened: Opened) -> None:
    with served(opened, Limits(connections=3)) as client:
        held = [raw_post(address_of(client), b"xx")[0] for _ in range(3)]
        time.sleep(0.2)
        with httpx.Client(base_url=client.base_url) as other:
            assert other.get("/healthz").status_code == 503
        for one in held:
            one.close()
        time.sleep(0.2)
        assert client.get("/healthz").status_code == 200


def test_a_client_that_does_not_read_is_cut_off(opened: Opened) -> None:
    with served(opened, Limits(head_seconds=0.3)) as client:
        connected, body = raw_post(address_of(client), body_of(input=["a"] * 2048))
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        head = b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        head += b"content-length: %d\r\n\r\n" % len(body)
        for _ in range(8):  # answers of 2 MB each, more than a socket holds
            connected.sendall(body)
            connected.sendall(head)
        end = time.monotonic() + 10
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < end:
                connected.sendall(b" ")
                time.sleep(0.05)
        assert time.monotonic() < end
        assert post(client, input="a").status_code == 200


def test_texts_of_many_clients_are_computed_together(opened: Opened, held: Held) -> None:
    with served(opened, Limits(), runs=1) as client, ThreadPoolExecutor(21) as pool:
        first = pool.submit(post, client, input="a")
        held.entered.acquire()
        others = [pool.submit(post, client, input=f"text {index}") for index in range(20)]
        await_line(client, "align_waiting_items 21.0")
        held.go.set()
        expected = opened.towers.model.embed_texts([f"text {index}" for index in range(20)])
        for answer, row in zip(others, expected, strict=True):
            assert abs(rows(answer.result())[0] - row).max() < 1e-6
        assert first.result().status_code == 200
        assert held.calls == [1, 20]
