"""Measures exports and loads in the published sizes; writes ``benchmarks/results/full_size.json``.

    python benchmarks/measure_full_size.py [--rounds 7]

Random conditioned weights (see tests/support/checkpoints.py): good for time, memory and parity.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from align_runtime import Bundle
from benchmarks.machine import describe
from support.checkpoints import full_size_checkpoint

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "full_size.json"
ROOMS = [str(ROOT / room) for room in ("reference", "calibration", "exporter", "runtime")]

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

LOAD = """
import json, sys, time
start = time.perf_counter()
import align_runtime
imported = time.perf_counter()
model = align_runtime.load(sys.argv[1])
loaded = time.perf_counter()
print(json.dumps({"import_seconds": imported - start, "load_seconds": loaded - imported}))
"""


def run(program: str, *arguments: str) -> dict[str, Any]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(ROOMS)}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="loads measured, after one that is not (default: 7)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, bundle = full_size_checkpoint(Path(folder) / "checkpoint"), Path(folder) / "bundle"
        arguments = (str(checkpoint), "-o", str(bundle))
        export = run(EXPORT, *arguments)
        export_fp16 = run(EXPORT, *arguments, "--fp16")
        again = run(EXPORT, *arguments, "--fp16")
        manifest = Bundle.open(bundle).manifest
        loads = [run(LOAD, str(bundle)) for _ in range(options.rounds + 1)][1:]
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
        "machine": describe(),
        "export": export,
        "export_fp16": export_fp16,
        "again": again,
        "graphs": graphs,
        "loads": loads,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {RESULT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
