"""Fetching images: from listed hosts at addresses that were checked, bounded in bytes and time; nothing else."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from align_runtime.errors import ConfigurationError, InputError
from align_serving.http.fetching import Fetcher, FetchOptions
from align_serving.http.opening import Opened
from support.running_service import png, post, rows

LOOPBACK = ("127.0.0.0/8",)


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.paths.append(self.path)  # type: ignore[attr-defined]
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("location", "/image.png")
            self.end_headers()
        elif self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(200):
                self.wfile.write(b"x")
                time.sleep(0.05)
        elif self.path == "/slow-head":
            for _ in range(200):
                self.wfile.write(b"H")
                time.sleep(0.05)
        elif self.path == "/large":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"x" * 2_000_000)
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(png("purple"))

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def images() -> Iterator[tuple[str, list[str]]]:
    """The address of a web server on loopback, and the paths that it was asked for."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    server.paths = []  # type: ignore[attr-defined]
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", server.paths  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()


def test_an_image_of_a_listed_host(make_client: Any, opened: Opened) -> None:
    with images() as (host, _):
        client = make_client(fetch=FetchOptions((host,), LOOPBACK))
        answer = post(client, input=[{"image": f"http://{host}/image.png?size=1"}])
        expected = opened.towers.model.embed_images([png("purple")])
        np.testing.assert_allclose(rows(answer), expected, rtol=0, atol=1e-6)
        refused = post(client, input=[{"image": "http://127.0.0.1:9/image.png"}])
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input")


def test_an_address_that_is_not_public_needs_a_network() -> None:
    with images() as (host, paths):
        with pytest.raises(InputError, match="not public"):
            Fetcher(FetchOptions((host,))).fetch(f"http://{host}/image.png")
        assert paths == []


@pytest.mark.parametrize("path", ["redirect", "slow", "slow-head", "large"])
def test_what_is_no_image_within_the_limits(path: str) -> None:
    with images() as (host, paths):
        fetcher = Fetcher(FetchOptions((host,), LOOPBACK, max_bytes=1_000_000, seconds=0.4))
        start = time.monotonic()
        with pytest.raises(InputError):
            fetcher.fetch(f"http://{host}/{path}")
        assert time.monotonic() - start < 5
        assert paths == [f"/{path}"]


URLS = [
    "http://other.example/a.png",
    "http://good.example:8080/a.png",
    "http://good.example@evil.example/a.png",
    "http://good.example.evil.example/a.png",
    "http://evil.example#@good.example/",
    "http://evil.example\\@good.example/",
    "http://good.example:0/",
    "http://good.example:99999/",
    "http:///a.png",
    "http://[::1/",
    "https://good.example/a b",
    "https://good.example/\r\nx: y",
    "https://good.example/ä",
    "https://good.example/" + "a" * 5000,
    "ftp://good.example/a.png",
    "HTTP://0x7f.1/",
]


@pytest.mark.parametrize("url", URLS)
def test_nothing_is_resolved_for_a_url_that_is_not_listed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise AssertionError("resolved")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    with pytest.raises(InputError):
        Fetcher(FetchOptions(("good.example",))).fetch(url)


NOT_PUBLIC = ["127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.0.1", "0.0.0.0", "100.64.0.1", "224.0.0.1", "::1",
              "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1",
              "2002:7f00:1::", "2001:0:7f00:1::", "::7f00:1"]  # fmt: skip


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_a_listed_name_that_leads_inside_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 80)),
             (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, 80, 0, 0))]  # fmt: skip
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("connected"))
    with pytest.raises(InputError, match="not public"):
        Fetcher(FetchOptions(("good.example",))).fetch("http://good.example/a.png")


def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([[(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 80))]])
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: next(answers))
    asked = []

    def connect(address: Any, **_: Any) -> None:
        asked.append(address)
        raise OSError("no network")

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(InputError, match="no network"):
        Fetcher(FetchOptions(("good.example",))).fetch("http://GOOD.example/a.png")
    assert asked == [("93.184.216.34", 80)]


@pytest.mark.parametrize("host", ["", "http://a", "a/b", "a:b", "user@a", "a:0", "[::1"])
def test_a_malformed_host(host: str) -> None:
    with pytest.raises(ConfigurationError):
        FetchOptions((host,))


def test_a_malformed_network() -> None:
    with pytest.raises(ConfigurationError):
        FetchOptions(("a",), ("10.0.0.1/8",))
