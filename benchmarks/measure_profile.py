"""Measures the time of one image by kernel; writes ``benchmarks/results/profile.json``.

    python -m benchmarks.measure_profile [--runs 9] [--folder build/bench]

ONNX Runtime's profiler on the vision graphs for CPUs in the published sizes, with one thread and one image, as in a
stream. A kernel has the name that ONNX Runtime gives it after fusion; convolutions are grouped by their role in the
network.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime

from align_runtime.backends.onnxruntime import sum_exactly
from align_runtime.console import table
from benchmarks.full_size_bundle import FOLDER, prepare
from benchmarks.result_files import conditions, write_result
from support.checkpoints import crops

WARM_UP = 3
GATED = "squeeze_excite/Mul_2"  # the multiplication of the feature map by the squeeze-excite gate


def group_of(node: str, operator: str) -> str:
    """The group of a kernel.

    `GATED` is not counted as squeeze-excite: it works on the whole feature map, as the multiplication of a SiLU does.
    """
    if ".squeeze_excite" in node and GATED not in node:
        return "squeeze-excite"
    if operator.endswith("Conv"):
        return f"{operator}, depthwise" if "depthwise_conv" in node else f"{operator}, 1×1 and stem"
    return operator


def events(file: Path, inputs: Mapping[str, np.ndarray], runs: int) -> Iterator[tuple[int, str, dict[str, Any], float]]:
    """Index of the run, node, arguments and milliseconds of every kernel in the last `runs` runs, from the profiler."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        options.enable_profiling, options.profile_file_prefix = True, f"{folder}/profile"
        sum_exactly(options)
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        for _ in range(WARM_UP + runs):
            session.run(None, inputs)
        records = json.loads(Path(session.end_profiling()).read_text())
    starts = sorted(record["ts"] for record in records if record["name"] == "model_run")[WARM_UP:]
    for record in records:
        if record.get("cat") == "Node" and record["name"].endswith("_kernel_time") and record["ts"] >= starts[0]:
            run = int(np.searchsorted(starts, record["ts"], side="right")) - 1
            yield run, record["name"], record["args"], record["dur"] / 1000


def profile(file: Path, pixels: np.ndarray, runs: int) -> dict[str, Any]:
    """By group: the number of kernels, and the milliseconds of every run."""
    milliseconds: dict[str, list[float]] = defaultdict(lambda: [0.0] * runs)
    kernels: dict[str, set[str]] = defaultdict(set)
    for run, node, arguments, duration in events(file, {"pixels": pixels}, runs):
        group = group_of(node, arguments["op_name"])
        milliseconds[group][run] += duration
        kernels[group].add(node)
    order = sorted(milliseconds, key=lambda group: -median(milliseconds[group]))
    return {
        group: {"kernels": len(kernels[group]), "milliseconds": [round(value, 3) for value in milliseconds[group]]}
        for group in order
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9, help="runs of each graph (default: 9)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="checkpoint and bundle, made if missing")
    options = parser.parse_args()
    load_before = os.getloadavg()
    bundle = prepare(options.folder).bundle
    size = bundle.manifest.preprocessing.output_size[0]
    pixels = np.stack([np.asarray(image) for image in crops(1, size)])
    graphs = {}
    for precision in ("fp32", "int8"):
        file = bundle.path(bundle.graph("vision", precision, "cpu").file)
        graphs[precision] = found = profile(file, pixels, options.runs)
        rows = [[group, str(row["kernels"]), f"{median(row['milliseconds']):.2f}"] for group, row in found.items()]
        print(table([precision, "kernels", "ms"], rows, right=(1, 2)), flush=True)
    write_result("profile", {**conditions(load_before), "graphs": graphs})


if __name__ == "__main__":
    main()
