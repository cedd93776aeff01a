"""Measures exports and loads in the published sizes; writes ``benchmarks/results/full_size.json``.

    python -m benchmarks.measure_full_size [--rounds 7]

The weights are random and conditioned (see tests/support/checkpoints.py): suited to time, memory and parity. The parity
gate accepts every finite INT8 result, since such weights say nothing about INT8.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from align_bench.measure import measure_start
from align_runtime import Bundle
from benchmarks.result_files import describe_machine, write_result
from support.checkpoints import crops, full_size_checkpoint

INT8_IMAGES, CROP = 200, 320  # crops of photographs, and their size

# In a process of its own, which imports nothing else: this one has PyTorch loaded, which takes memory.
EXPORT = """
import json, sys, time
start = time.perf_counter()
from pathlib import Path
from align_exporter.command import main
code = main([*sys.argv[1:], "--quiet"])
seconds = time.perf_counter() - start
lines = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
print(json.dumps({"seconds": seconds, "peak_bytes": peak}))
sys.exit(code)
"""


def export(*arguments: str) -> dict[str, Any]:
    """Seconds and peak memory of ``align-export`` with `arguments`."""
    command = [sys.executable, "-c", EXPORT, *arguments]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="measured loads, after one to warm up (default: 7)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, bundle = full_size_checkpoint(Path(folder) / "checkpoint"), Path(folder) / "bundle"
        arguments = (str(checkpoint), "-o", str(bundle))
        plain = export(*arguments)
        fp16 = export(*arguments, "--fp16")
        unchanged = export(*arguments, "--fp16")
        images = Path(folder) / "images"
        images.mkdir()
        for index, image in enumerate(crops(INT8_IMAGES, CROP)):
            image.save(images / f"{index:03}.png")
        any_result = ("--parity-max-abs", "int8=2", "--parity-min-cosine", "int8=-1")
        new = ("-o", str(Path(folder) / "int8"), "--no-calibration-cache", "--calibration-images", str(images))
        int8 = export(str(checkpoint), *new, "--int8", *any_result)
        manifest = Bundle.open(bundle).manifest
        starts = [measure_start(bundle, "fp32", "cpu", None, None) for _ in range(options.rounds + 1)][1:]
    graphs = [
        {
            "file": graph.file,
            "variant": graph.variant,
            "target": graph.target,
            "bytes": manifest.graph_bytes(graph),
            "content": {"macs": dict(graph.content.macs), "weights": dict(graph.content.weights)},
            "islands": len(graph.islands),
            "parity": graph.parity.to_json(),
        }
        for graph in manifest.graphs
    ]
    result = {
        "machine": describe_machine(),
        "export": plain,
        "export_fp16": fp16,
        "again": unchanged,
        "export_int8": {**int8, "images": INT8_IMAGES},
        "graphs": graphs,
        "loads": [{"import_seconds": start.import_seconds, "load_seconds": start.load_seconds} for start in starts],
    }
    write_result("full_size", result)


if __name__ == "__main__":
    main()
