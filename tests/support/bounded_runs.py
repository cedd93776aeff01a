"""Runs code in a process of its own and measures what it cost: a hostile input must not take the tests with it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

_FRAME = """
import resource, time
{setup}
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
{code}
used = resource.getrusage(resource.RUSAGE_SELF)
print("COST", time.process_time() - start, (used.ru_maxrss - before) / 1024)
"""


@dataclass(frozen=True)
class Cost:
    """What the code printed, its CPU seconds, and the growth of the process's peak memory in MiB."""

    output: str
    seconds: float
    mebibytes: float


def cost_of(setup: str, code: str, timeout: float = 60) -> Cost:
    """Runs `setup`, then `code`, which is measured."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", _FRAME.format(setup=setup, code=code)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=True,
    )
    output, _, costs = done.stdout.rpartition("COST ")
    seconds, mebibytes = costs.split()
    return Cost(output.strip(), float(seconds), float(mebibytes))
