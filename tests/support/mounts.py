"""Mounts in a namespace of their own: real overlayfs, bind and read-only mounts that leave nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import align_runtime


def run_with_mounts(folder: Path, mounts: str, program: str) -> subprocess.CompletedProcess[str]:
    """Runs the Python `program` in `folder` after the shell commands `mounts`; skips where mounting is not allowed."""
    if not _may_mount():
        pytest.skip("needs Linux and the right to mount in a namespace")
    script = f'set -e\n{mounts}\nexec "$0" -c "$1"'
    return subprocess.run(
        [*_unshare(), "/bin/sh", "-c", script, sys.executable, program],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(align_runtime.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )


def _unshare() -> list[str]:
    return ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]


@cache
def _may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = [*_unshare(), "/bin/sh", "-c", "mount -t tmpfs none /mnt && mkdir /mnt/l /mnt/u /mnt/w /mnt/m && "
             "mount -t overlay o -o lowerdir=/mnt/l,upperdir=/mnt/u,workdir=/mnt/w /mnt/m"]  # fmt: skip
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0
