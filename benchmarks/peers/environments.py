"""The virtual environment of each peer: their packages exclude each other's versions and ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parent
OWN = "onnxruntime"  # comes with the development environment
PEERS = (OWN, "nncf", "modelopt", "quark", "aimet", "neural_compressor")


class MissingPeerError(Exception):
    """The environment of a peer could not be made."""


def interpreter(peer: str, folder: Path) -> Path:
    """The interpreter that has `peer`; its environment is made under `folder` from ``PEER.txt`` where it is not there
    or that has changed.

    Raises:
        MissingPeerError: with the last line of pip's complaint.
    """
    if peer == OWN:
        return Path(sys.executable)
    environment = folder / peer
    python, installed = environment / "bin" / "python", environment / ".installed"
    requirements = SCRIPTS / f"{peer}.txt"
    if not installed.exists() or installed.read_text() != requirements.read_text():
        print(f"installing {peer} into {environment}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
        done = subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise MissingPeerError((done.stderr.strip().splitlines() or ["pip says nothing"])[-1])
        installed.write_text(requirements.read_text())
    return python
