"""Commands in a process of their own, as a shell starts them, with standard streams that are closed, full or broken."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOMS = [str(Path(__file__).parents[2] / room) for room in ("reference", "calibration", "exporter", "runtime")]
TESTS = str(Path(__file__).parents[1])
CLOSED = (">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-")
BROKEN = ("| true", "2>&1 | true", "2> >(true)")  # readers that have gone


@dataclass(frozen=True)
class Ended:
    """What came out of a command."""

    code: int
    stdout: str
    stderr: str


def redirected(module: str, arguments: list[Any], redirection: str, unbuffered: str = "") -> Ended:
    """``main`` of `module` with `arguments` and the shell's `redirection`, one of bash, e.g. ``2>&-``."""
    program = f"import sys; from {module} import main; sys.exit(main())"
    script = f'"$@" {redirection}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["/bin/bash", "-c", script, "bash", sys.executable, "-c", program, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*ROOMS, TESTS]), "PYTHONUNBUFFERED": unbuffered},
        capture_output=True,
        text=True,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)
