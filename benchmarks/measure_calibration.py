"""Measures the memory of INT8 calibration in the published sizes; writes ``benchmarks/results/calibration.json``.

    python -m benchmarks.measure_calibration [--images 16 500] [--with-trials 16]

Every number of images is measured in a process of its own, on the vision graph alone: histograms of all its tensors,
with a cache, and for the numbers of ``--with-trials`` the whole calibration, including the search by layer outputs and
the trial of every observer. Peak memory is that of the process (VmHWM). Images are random crops of two photographs; the
weights are random and conditioned (see tests/support/checkpoints.py): suited to memory and the number of runs.
Histograms take two runs of the graph for each image. Time is not recorded.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime

from align_calibration.histograms import measure_histograms
from align_calibration.statistics_cache import StatisticsCache
from align_exporter.command import main as export
from align_exporter.int8.build import FOR_CPU
from align_exporter.int8.calibrate import choose_scales
from align_exporter.int8.calibration_samples import Calibration
from align_runtime.progress import Progress
from benchmarks.result_files import describe_machine, write_result
from support.checkpoints import crops, full_size_checkpoint


def calibrate(file: Path, count: int, trials: bool) -> dict[str, Any]:
    """Peak memory and number of runs of calibrating the graph in `file` on `count` images, of this whole process.

    Args:
        trials: search by layer outputs and try every observer too, instead of measuring histograms only.
    """
    runs: list[None] = []  # appended to by several threads at once

    class CountingSession(onnxruntime.InferenceSession):
        def run(self, *arguments: Any, **options: Any) -> Any:
            if self.get_inputs()[0].name == "pixels":  # not those that evaluate an activation
                runs.append(None)
            return super().run(*arguments, **options)

    onnxruntime.InferenceSession = CountingSession
    model = ir.load(file)
    images = [{"pixels": np.asarray(image)[None]} for image in crops(count, model.graph.inputs[0].shape[1])]
    method = FOR_CPU["vision"]
    tensors = method.tensors(model.graph)
    with tempfile.TemporaryDirectory() as name:
        folder, progress = Path(name), Progress()
        cache = StatisticsCache(folder / "cache", sys.exit)
        histograms = measure_histograms(model, tensors, images, folder, cache, progress)
        if trials:
            choose_scales(model, method, histograms, Calibration(images, folder, cache, progress))
        (entry,) = (folder / "cache").iterdir()
        cache_bytes = entry.stat().st_size
    return {
        "images": count,
        "trials": trials,
        "tensors": len(tensors),
        "runs": len(runs),
        "peak_bytes": peak_bytes(),
        "cache_bytes": cache_bytes,
    }


def peak_bytes() -> int:
    """The most memory of this process that was ever resident, from Linux's /proc."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def in_fresh_process(file: Path, count: int, trials: bool) -> dict[str, Any]:
    """`calibrate` in a new process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(calibrate, file, count, trials).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[16, 500], help="numbers of images (default: 16 500)")
    parser.add_argument("--with-trials", type=int, nargs="*", default=[16], help="with all trials (default: 16)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, bundle = full_size_checkpoint(Path(folder) / "checkpoint"), Path(folder) / "bundle"
        if export([str(checkpoint), "-o", str(bundle)]) != 0:
            sys.exit("the export failed")
        file = bundle / "onnx" / "vision_model.onnx"
        cases = [in_fresh_process(file, count, False) for count in options.images]
        cases += [in_fresh_process(file, count, True) for count in options.with_trials]
    asked = {"images": options.images, "with_trials": options.with_trials}
    write_result("calibration", {"machine": describe_machine(), "asked": asked, "cases": cases})


if __name__ == "__main__":
    main()
