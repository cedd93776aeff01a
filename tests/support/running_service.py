"""The HTTP service in a thread of this process or as a process, and requests to it."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import align_runtime
from align_serving.http import server
from align_serving.http.gate import Gate
from align_serving.http.limits import Limits

NAME = "align-tiny"


@contextmanager
def running(app: Gate, limits: Limits | None = None) -> Iterator[str]:
    """The address, ``http://127.0.0.1:PORT``, of `app` behind the real web server, on loopback."""
    options = server.ServerOptions(port=0, drain_seconds=0)
    started: Queue[server.Server] = Queue()
    with server.bind(options) as bound, ThreadPoolExecutor(1) as pool:
        ended = pool.submit(server.serve, app, bound, limits or Limits(), options, started.put)
        running_server = started.get(timeout=30)
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            running_server.should_exit = True
            ended.result(60)


@contextmanager
def served(
    program: str, arguments: Sequence[str], line: str, variables: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that runs the Python `program`, and its address: the group of the pattern `line`, which it prints."""
    environment = os.environ | {"PYTHONPATH": str(Path(align_runtime.__file__).parents[1])} | dict(variables or {})
    command = [sys.executable, "-c", program, *arguments]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            printed = process.stdout.readline()
            found = re.fullmatch(line, printed)
            assert found, printed + process.stderr.read()
            wait_for(found[1])
            yield process, found[1]
        finally:
            process.kill()


def wait_for(address: str) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            if httpx.get(f"{address}/healthz").status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.05)
    raise AssertionError("not healthy")


def png(colour: str = "red", size: tuple[int, int] = (20, 16)) -> bytes:
    file = BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def data_uri(image: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(image).decode()


def post(client: httpx.Client, path: str = "/v1/embeddings", **body: Any) -> httpx.Response:
    return client.post(path, json={"model": NAME} | body)


def rows(answer: httpx.Response) -> NDArray[np.float32]:
    assert answer.status_code == 200, answer.text
    return np.array([entry["embedding"] for entry in answer.json()["data"]], np.float32)


def raw_post(address: str, body: bytes, extra: str = "") -> tuple[socket.socket, bytes]:
    """A connection on which the head of a POST was sent, and the body that is due."""
    host, port = address.removeprefix("http://").split(":")
    connected = socket.create_connection((host, int(port)), timeout=20)
    head = f"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{extra}"
    connected.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode())
    return connected, body


def body_of(**values: Any) -> bytes:
    return json.dumps({"model": NAME} | values).encode()
