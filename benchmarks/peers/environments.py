"""The virtual environment of each quantization tool: their requirements conflict with each other and with ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parent
OWN = "onnxruntime"  # comes with the development environment
PEERS = (OWN, "nncf", "modelopt", "quark", "aimet", "neural_compressor")


class MissingPeerError(Exception):
    """The environment of a tool could not be created."""


def interpreter(peer: str, folder: Path) -> Path:
    """The Python interpreter that has `peer` installed.

    Its environment under `folder` is created from ``PEER.txt`` if it is missing or that file has changed.

    Raises:
        MissingPeerError: with the last line of pip's error.
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
            raise MissingPeerError((done.stderr.strip().splitlines() or ["pip gave no reason"])[-1])
        installed.write_text(requirements.read_text())
    return python
