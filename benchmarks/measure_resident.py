"""Measures resident memory by options of `load` in the published sizes; writes ``benchmarks/results/resident.json``.

    python -m benchmarks.measure_resident [--folder build/bench]

Each row is a fresh process on Linux: resident memory after the imports, after `load`, after 10 calls with 64 captions
and with 4 images each, and after `close`; and the peak.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from align_exporter.export_options import ExportOptions
from align_exporter.freshness import provenance
from align_exporter.pipeline import build_bundle
from align_reference.source import resolve
from align_runtime.progress import Progress
from benchmarks.full_size_bundle import FOLDER, OPTIONS
from benchmarks.result_files import conditions, write_result
from support.checkpoints import full_size_checkpoint

EXPORT = ExportOptions(
    precisions=("fp16", "int8"),
    int8_device=OPTIONS.int8_device,
    parity_max_abs=OPTIONS.parity_max_abs,
    parity_min_cosine=OPTIONS.parity_min_cosine,
)
ROWS: tuple[dict[str, Any], ...] = (
    {},
    {"streams": 1},
    {"towers": ["text"]},
    {"towers": ["text"], "streams": 1},
    {"towers": ["vision"]},
    {"towers": ["vision"], "streams": 1},
    {"arena": False},
    {"mmap": False},
    {"precision": "int8"},
    {"precision": "fp16"},
)
PROGRAM = """
import json, sys
import numpy as np
import align_runtime

def resident(name="VmRSS"):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))

found = {"imported": resident()}
model = align_runtime.load(sys.argv[1], threads=2, **json.loads(sys.argv[2]))
found["loaded"] = resident()
height, width = model.info.image_size
images = np.random.default_rng(0).integers(0, 256, (4, height, width, 3), np.uint8)
for _ in range(10):
    if "text" in model.info.towers:
        model.embed_texts(["a photo of a cat that sits on a mat and looks at a hat"] * 64)
    if "vision" in model.info.towers:
        model.embed_pixels(images)
found["called"] = resident()
model.close()
print(json.dumps(found | {"closed": resident(), "peak": resident("VmHWM")}))
"""


def bundle_in(folder: Path) -> Path:
    """A bundle of the published sizes in FP32, FP16 and INT8 for CPUs; what is there already is kept."""
    checkpoint, target = folder / "checkpoint", folder / "memory-bundle"
    if not (checkpoint / "config.json").is_file():
        full_size_checkpoint(checkpoint)
    if not (target / "align.json").is_file():
        source = resolve(str(checkpoint))
        build_bundle(source, provenance(source, EXPORT), target, EXPORT, Progress())
    return target


def measure(bundle: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Resident bytes of a fresh process at each step."""
    command = [sys.executable, "-c", PROGRAM, str(bundle), json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return {"options": options} | found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="checkpoint and bundle, made if missing")
    options = parser.parse_args()
    load, bundle, rows = os.getloadavg(), bundle_in(options.folder), []
    for row in ROWS:
        rows.append(measure(bundle, row))
        print(row, f"{rows[-1]['loaded'] / 2**20:.0f} MiB after load", flush=True)
    write_result("resident", {**conditions(load), "rows": rows})


if __name__ == "__main__":
    main()
