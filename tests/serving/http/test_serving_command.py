"""``align-serve`` as a process: what it prints, wrong calls, and an end that loses no request."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

import align_runtime
from support.running_service import NAME, post, rows, served

ROOT = Path(__file__).parents[3]
PROGRAM = "import sys; from align_serving.http.command import main; sys.exit(main(sys.argv[1:]))"


@contextmanager
def serving(
    bundle: Path, *options: str, variables: dict[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and its address."""
    line = r"serving align-tiny \(fp32 on cpu\) at (http://\S+)/v1\n"
    with served(PROGRAM, [str(bundle), "--port", "0", *options], line, variables) as found:
        yield found


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "runtime")}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_a_key_from_the_environment_and_an_end_with_0(tiny_bundle: Path) -> None:
    with serving(tiny_bundle, "--drain", "0", variables={"ALIGN_API_KEY": "secret"}) as (process, address):
        assert httpx.get(f"{address}/v1/models").status_code == 401
        headers = {"authorization": "Bearer secret"}
        assert httpx.get(f"{address}/v1/models", headers=headers).json()["data"][0]["id"] == NAME
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def clients(
    address: str, stop: threading.Event, count: int
) -> tuple[list[threading.Thread], list[tuple[int, np.ndarray]], list[str]]:
    """`count` threads that ask without a pause, until `stop` is set; their answers, and what failed."""
    answers: list[tuple[int, np.ndarray]] = []
    failed: list[str] = []

    def ask(number: int) -> None:
        with httpx.Client(base_url=address, timeout=30) as client:
            while not stop.is_set():
                try:
                    answers.append((number, rows(post(client, input=f"text {number}"))[0]))
                except Exception as error:
                    failed.append(repr(error))
                    return

    threads = [threading.Thread(target=ask, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads, answers, failed


def test_no_request_is_lost_at_the_end(tiny_bundle: Path) -> None:
    """Clients stop to send when the server says that it is not healthy, as a load balancer does."""
    stop = threading.Event()
    with serving(tiny_bundle, "--drain", "2") as (process, address):
        threads, answers, failed = clients(address, stop, 16)
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        end = time.monotonic() + 10
        while httpx.get(f"{address}/healthz").status_code == 200:
            assert time.monotonic() < end
        asked = len(answers)
        time.sleep(0.3)
        assert len(answers) > asked, "requests are answered while the server drains"
        stop.set()
        for thread in threads:
            thread.join()
        assert process.wait(30) == 0
    assert failed == []
    with align_runtime.load(tiny_bundle) as model:
        expected = model.embed_texts([f"text {number}" for number in range(16)])
    for number, row in answers:
        np.testing.assert_allclose(row, expected[number], rtol=0, atol=1e-6)


def test_what_was_sent_before_the_signal_is_answered(tiny_bundle: Path) -> None:
    with serving(tiny_bundle, "--drain", "0") as (process, address), httpx.Client(base_url=address) as client:
        answers: list[int] = []
        sent = [
            threading.Thread(target=lambda: answers.append(len(rows(post(client, input=["a b c"] * 2048)))))
            for _ in range(2)
        ]
        for thread in sent:
            thread.start()
        time.sleep(0.15)
        process.send_signal(signal.SIGTERM)
        for thread in sent:
            thread.join()
        assert answers == [2048, 2048]
        assert process.wait(20) == 0


WRONG: dict[str, Sequence[str]] = {
    "port": ["--port", "99999"],
    "queue": ["--max-queue", "1"],
    "host": ["--fetch-host", "http://a"],
    "network": ["--fetch-network", "x"],
    "keys": ["--api-key-file", os.devnull],
    "drain": ["--drain", "nan"],
    "precision": ["--precision", "fp9"],
    "address": ["--host", "203.0.113.7"],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_call_is_one_line(tiny_bundle: Path, name: str) -> None:
    done = call(str(tiny_bundle), *WRONG[name])
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith("align-serve: error: ")


def test_a_port_in_use_is_told_at_once(tiny_bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = call(str(tiny_bundle), "--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "in use" in done.stderr
    assert "--port" in done.stderr


def test_a_missing_package_is_told_with_the_command_that_installs_it(tiny_bundle: Path) -> None:
    program = f"import sys; sys.modules['uvicorn'] = None\n{PROGRAM}"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "runtime")}
    command = [sys.executable, "-c", program, str(tiny_bundle)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'align-onnx[http]'" in done.stderr
    assert json.dumps(done.stderr).count("\\n") == 1
