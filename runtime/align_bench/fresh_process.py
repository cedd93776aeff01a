"""What a service pays once: measured in processes of their own, where nothing is loaded and nothing is warm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from align_bench.record import Start
from align_runtime.errors import BackendUnavailableError

# The first call of each tower; memory is the most that was ever resident.
PROGRAM = """
import json, sys, time
start = time.perf_counter()
import align_runtime
imported = time.perf_counter()
bundle, precision, device, threads, streams = json.loads(sys.argv[1])
try:
    model = align_runtime.load(bundle, precision=precision, device=device, threads=threads, streams=streams)
except align_runtime.AlignError as error:
    sys.exit(str(error))
loaded = time.perf_counter()
import numpy as np
image = np.zeros((480, 640, 3), np.uint8)
before_vision = time.perf_counter()
model.embed_images([image])
vision = time.perf_counter()
model.embed_texts(["a photo of a cat"])
text = time.perf_counter()
try:
    lines = open("/proc/self/status").read().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
except OSError:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, which has no /proc
print(json.dumps({
    "import_seconds": imported - start, "load_seconds": loaded - imported,
    "first_seconds": {"vision": vision - before_vision, "text": text - vision}, "peak_bytes": peak,
}))
"""


def measure_start(bundle: Path, precision: str, device: str, threads: int | None, streams: int | None) -> Start:
    """Starts a process that imports, loads, and runs each tower once.

    Raises:
        BackendUnavailableError: the process failed, with what it said last.
    """
    source = str(Path(__file__).parents[2])
    paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-c", PROGRAM, json.dumps([str(bundle), precision, device, threads, streams])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise BackendUnavailableError(f"a fresh process could not load and run the bundle: {said}")
    values: dict[str, Any] = json.loads(done.stdout)
    return Start(precision, device, **values)
