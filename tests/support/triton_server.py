"""A real Triton server on free ports of this machine, see `support.fetch_triton`."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sysconfig
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.fetch_triton import READY, ROOT

FOLDER = Path(os.environ.get("ALIGN_TRITON", ROOT / "build" / "triton"))
MISSING = None if (FOLDER / READY).exists() else "no Triton server: make triton-server"
START_SECONDS = 60


@dataclass(frozen=True)
class TritonServer:
    """A server that is ready: addresses as ``host:port``, and the file of its log."""

    http: str
    grpc: str
    metrics: str
    log: Path
    process: subprocess.Popen[bytes]

    def metric(self, name: str, model: str) -> float:
        """The sum of a counter over the versions of `model`."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        lines = re.findall(rf'^{name}\{{[^}}]*model="{re.escape(model)}"[^}}]*\}} ([0-9.e+]+)$', text, re.MULTILINE)
        return sum(map(float, lines))


@contextmanager
def running(repositories: Sequence[Path], log: Path, *options: str) -> Iterator[TritonServer]:
    """A server of `repositories`, until the end of the block; its models are ready."""
    server = FOLDER / "pytriton" / "tritonserver"
    http, grpc, metrics = (f"127.0.0.1:{port}" for port in free_ports(3))
    command = [server / "bin" / "tritonserver", f"--backend-directory={server / 'backends'}", *options]
    command.append("--exit-timeout-secs=5")  # a model that does not unload would hold the tests for 30 s
    command += [f"--model-repository={repository}" for repository in repositories]
    for name, address in (("http", http), ("grpc", grpc), ("metrics", metrics)):
        command += [f"--{name}-address=127.0.0.1", f"--{name}-port={address.rpartition(':')[2]}"]
    environment = os.environ | {
        "PATH": f"{FOLDER / 'python' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR")),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_until_ready(process, http, log)
            yield TritonServer(http, grpc, metrics, log, process)
        finally:
            process.terminate()
            process.wait(60)


def free_ports(count: int) -> list[int]:
    """Ports that nobody has; they are free again when this returns."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def wait_until_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Waits for the server to say so; its log is the error where it does not."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{address}/v2/health/ready", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(log.read_text(errors="replace")[-4000:])
