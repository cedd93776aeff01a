"""Measures the memory of INT8 calibration in the published sizes; writes ``benchmarks/results/calibration.json``.

    python benchmarks/measure_calibration.py [--images 16 500] [--whole 16]

Each number of images in a process of its own, on the vision graph alone: measuring the histograms of all its tensors,
with a cache, and for the numbers of `--whole` all that INT8 does with them, every observer's trial included. Peak
memory is the process's (VmHWM). Images are random parts of two photographs, weights random and conditioned (see
tests/support/checkpoints.py): good for memory and counts of runs. The histograms take eight runs of the graph for each
image, one for the extremes and one for each of seven slices of its tensors: 4,000 runs for 500 images, some half an
hour where two cores do nothing else. Seconds are not recorded: they depend on the neighbours.
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

from align_exporter.command import main as export
from benchmarks.machine import describe
from support.checkpoints import full_size_checkpoint

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "calibration.json"
ROOMS = [str(ROOT / room) for room in ("reference", "calibration", "exporter", "runtime", "tests")]

CALIBRATE = """
import json, sys
from pathlib import Path
import numpy as np
import onnx_ir as ir
from align_calibration import histograms
from align_calibration import run_instrumented as observe
from align_calibration.statistics_cache import StatisticsCache
from align_calibration.histograms import measure_histograms
from align_exporter.int8 import calibration
from align_exporter.int8.quantize import quantize_for_cpu
from align_exporter.int8.cpu_vision import quantized_tensors
from align_runtime.console import Progress
from support.checkpoints import crops

file, folder, count, whole = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "whole"
runs = 0

def counted(*arguments):
    global runs
    for output in observe.run_batches(*arguments):
        runs += 1
        yield output

histograms.run_batches = calibration.run_batches = counted
model = ir.load(file)
size = model.graph.inputs[0].shape[1]
images = [{"pixels": np.asarray(image)[None]} for image in crops(count, size)]
cache = StatisticsCache(folder / "cache", lambda text: sys.exit(text))
tensors = quantized_tensors(model.graph)
slices = len(list(histograms._slices(model.graph, tensors, images)))
progress = Progress()
if whole:
    quantize_for_cpu(model, "vision", calibration.Calibration(images, folder, cache, progress), None)
else:
    with progress.phase(f"{count} images"):
        measure_histograms(model, tensors, images, folder, cache, progress)
lines = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
(entry,) = (folder / "cache").iterdir()
print(json.dumps({
    "images": count, "trials": whole, "tensors": len(tensors), "slices": slices, "runs": runs,
    "peak_bytes": peak, "cache_bytes": entry.stat().st_size,
}))
"""


def calibrate(file: Path, count: int, whole: bool) -> dict[str, Any]:
    """What a process of its own takes to calibrate the graph `file` on `count` images."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(ROOMS)}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", CALIBRATE, str(file), folder, str(count), "whole" if whole else "histograms"]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[16, 500], help="how many (default: 16 500)")
    parser.add_argument("--whole", type=int, nargs="*", default=[16], help="with all trials (default: 16)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, bundle = full_size_checkpoint(Path(folder) / "checkpoint"), Path(folder) / "bundle"
        if export([str(checkpoint), "-o", str(bundle)]) != 0:
            sys.exit("the export failed")
        file = bundle / "onnx" / "vision_model.onnx"
        cases = [calibrate(file, count, False) for count in options.images]
        cases += [calibrate(file, count, True) for count in options.whole]
    result = {"machine": describe(), "asked": {"images": options.images, "whole": options.whole}, "cases": cases}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {RESULT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
