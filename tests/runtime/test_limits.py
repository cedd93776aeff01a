"""Limits of a process: memory and threads that run out end in an error of ours, never in a hang or a crash."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from align_runtime import ConfigurationError, DeviceError
from align_runtime.workers import Workers, check_startable
from runtime.test_forks import run_program

MEMORY = """
import resource, sys
import numpy as np
import align_runtime

def limit(spare):
    size = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, ((size << 10) + spare, resource.RLIM_INFINITY))

def attempt(work):
    try:
        work()
    except align_runtime.DeviceError as error:
        assert "out of memory" in str(error) or "threads can be started" in str(error), error
        print("refused")
    else:
        print("done")

model = align_runtime.load(sys.argv[1], threads=1, streams=1)
height, width = model.info.image_size
pixels = np.zeros((2048, height, width, 3), np.uint8)
few = model.embed_pixels(pixels[:1])
limit(12 << 20)
attempt(lambda: model.embed_pixels(pixels))
limit(1 << 30)
np.testing.assert_allclose(model.embed_pixels(pixels[:1]), few, atol=1e-6)  # it works on
limit(3 << 20)
attempt(lambda: align_runtime.load(sys.argv[1], threads=1, streams=1))
attempt(lambda: align_runtime.load(sys.argv[1], threads=64, streams=1))
"""

THREADS = """
import os, resource, sys
import align_runtime

align_runtime.load(sys.argv[1], threads=1).close()  # imports what another user may not be able to read
os.setuid(65534)  # the limit does not hold for root
resource.setrlimit(resource.RLIMIT_NPROC, (12, 12))
for threads in (64, 1024):
    try:
        align_runtime.load(sys.argv[1], threads=threads)
    except align_runtime.DeviceError as error:
        print("threads can be started" in str(error))
with align_runtime.load(sys.argv[1], threads=2, streams=8, decode_threads=64) as model:
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    print(model.embed_texts(["a photo of a cat"] * 40).shape[0])
"""


def test_memory_runs_out(tiny_bundle: Path) -> None:
    assert run_program(MEMORY, str(tiny_bundle)).split() == ["refused"] * 3


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to become another user")
def test_threads_run_out(tiny_bundle: Path) -> None:
    folder = Path("/tmp") / f"align-threads-{os.getpid()}"
    shutil.copytree(tiny_bundle, folder)
    try:
        folder.chmod(0o755)
        assert run_program(THREADS, str(folder)).split() == ["True", "True", "40"]
    finally:
        shutil.rmtree(folder)


def refuse(*_: object) -> None:
    raise RuntimeError("can't start new thread")


def test_without_threads_the_caller_does_the_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    workers = Workers(3)
    monkeypatch.setattr("threading.Thread.start", refuse)
    assert list(workers.ordered(lambda item: item * 10, range(20), ahead=4)) == [item * 10 for item in range(20)]
    assert workers.run(lambda: 5) == 5
    assert "can't start new thread; 0 of 3 threads do the work" in caplog.text
    with pytest.raises(DeviceError, match="0 of 2 threads"):
        check_startable(2)
    workers.close()
    with pytest.raises(ConfigurationError, match="closed"):
        workers.run(lambda: 5)
