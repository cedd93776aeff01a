"""Writes the surfaces in this folder: what the real bindings of TensorRT and CUDA offer, read from their wheels.

::

    pip download --no-deps -d wheels tensorrt-cu13-bindings==11.4.0.106 cuda-pathfinder   # and the others in WHEELS
    python tests/contract/make_surfaces.py wheels

The bindings load TensorRT's libraries, which are not in the wheel. Stub libraries replace them, which define the
undefined symbols of the bindings (``nm`` lists them, ``cc`` compiles them): the bindings can be imported and inspected,
but not called. Needs Linux, a C compiler, binutils and the Python version of the wheels; neither TensorRT nor a GPU.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SURFACES = HERE / "surfaces"
# Surface, the wheel's name up to its tags, the module in it.
WHEELS = {
    "tensorrt-11": ("tensorrt_cu13_bindings-11.4.0.106", "tensorrt_bindings"),
    "tensorrt-10": ("tensorrt_cu13_bindings-10.16.1.11", "tensorrt_bindings"),
    "tensorrt_lean-11": ("tensorrt_lean_cu13_bindings-11.4.0.106", "tensorrt_lean_bindings"),
    "tensorrt_lean-10": ("tensorrt_lean_cu13_bindings-10.16.1.11", "tensorrt_lean_bindings"),
    "tensorrt_rtx-1": ("tensorrt_rtx_cu13_bindings-1.7.1.116", "tensorrt_rtx_bindings"),
    "cudart-13": ("cuda_bindings-13.5.0", "cuda.bindings.runtime"),
}


def introspect(wheels: Path, name: str, work: Path) -> dict[str, Any]:
    """Unpacks the wheel of the surface `name` into `work`, adds stub libraries, and returns its surface."""
    prefix, module = WHEELS[name]
    (wheel,) = wheels.rglob(f"{prefix}-*.whl")
    for file in (wheel, *wheels.rglob("cuda_pathfinder-*.whl")):  # which the bindings of CUDA import
        with zipfile.ZipFile(file) as archive:
            archive.extractall(work)
    stubs = work / "stubs"
    stubs.mkdir()
    if module.startswith("tensorrt"):
        for binding in work.glob("tensorrt*_bindings/*.so"):
            write_stubs(binding, stubs)
    done = subprocess.run(
        [sys.executable, str(HERE / "introspect.py"), module],
        env={**os.environ, "PYTHONPATH": str(work), "LD_LIBRARY_PATH": str(stubs)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{wheel.name} cannot be introspected:\n{done.stderr}")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return {"wheel": wheel.name, "sha256": digest, **json.loads(done.stdout)}


def write_stubs(binding: Path, folder: Path) -> None:
    """Writes a stub of every TensorRT library that `binding` needs; each defines all of its undefined symbols."""
    needed = re.findall(r"NEEDED.*\[(libnv[^]]+)\]", _output("readelf", "-d", str(binding)))
    symbols = [line.split()[-1] for line in _output("nm", "-D", "--undefined-only", str(binding)).splitlines()]
    # Not those of the C and C++ libraries (with a version, @), the interpreter (Py) and the compiler (_).
    undefined = [name for name in symbols if "@" not in name and not name.startswith(("Py", "_"))]
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in undefined))
    for library in needed:
        _output("cc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{library}", "-o", str(folder / library), str(source))


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main(wheels: Path) -> None:
    SURFACES.mkdir(exist_ok=True)
    for name in WHEELS:
        with tempfile.TemporaryDirectory() as work:
            found = introspect(wheels, name, Path(work))
        (SURFACES / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
