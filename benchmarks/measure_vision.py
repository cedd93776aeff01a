"""Measures the FP32 vision graph on the CPU in the published sizes; writes ``benchmarks/results/vision.json``.

    python -m benchmarks.measure_vision [--rounds 8] [--threads 2] [--folder build/bench]

The baseline is transformers' vision tower as `torch.onnx.export` writes it, on ONNX Runtime, with normalized pixels.
Our graph gets uint8 pixels and normalizes them within the measured time. OpenVINO runs our graph in FP32; it does not
accept the baseline. Timing is interleaved, first on one thread in CPU time, which other processes do not disturb, then
on several threads by the wall clock.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from align_runtime.backends import open_runner
from benchmarks.full_size_bundle import FOLDER, prepare
from benchmarks.result_files import conditions, write_result
from benchmarks.timing import Runner, run_batches, time_case
from support.checkpoints import crops
from support.openvino_runner import OpenVinoRunner

BATCHES = {1: 4, 8: 1}  # batch size → rounds for each requested round
CLOCKS = {"processor": time.process_time, "wall": time.perf_counter}


def measure(graph: Path, plain: Path, size: int, rounds: int, threads: int, clock: str) -> list[dict[str, Any]]:
    """The cases of one clock, one for each batch size, on images of `size` × `size`."""
    runners: dict[str, Runner] = {
        "plain": open_runner(plain, "cpu", threads),
        "openvino": OpenVinoRunner(graph, threads),
        "graph": open_runner(graph, "cpu", threads),
    }
    cases = []
    for batch, repeats in BATCHES.items():
        pixels = np.stack([np.asarray(image) for image in crops(batch, size)])
        normalized = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1)
        inputs = {name: {"pixel_values": normalized} if name == "plain" else {"pixels": pixels} for name in runners}
        candidates = {name: run_batches(runner, [inputs[name]]) for name, runner in runners.items()}
        case = time_case(f"{clock} {batch}", candidates, repeats * rounds, CLOCKS[clock])
        cases.append({"batch": batch, "clock": clock, "threads": threads, **case})
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8, help="rounds of eight images, an even number (default: 8)")
    parser.add_argument("--threads", type=int, default=2, help="threads for the wall clock (default: 2)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="checkpoint and bundle, made if missing")
    options = parser.parse_args()
    load_before = os.getloadavg()
    model = prepare(options.folder)
    graph = model.bundle.path(model.bundle.graph("vision", "fp32", "cpu").file)
    size = model.bundle.manifest.preprocessing.output_size[0]
    cases = [
        *measure(graph, model.plain_vision, size, options.rounds, 1, "processor"),
        *measure(graph, model.plain_vision, size, options.rounds, options.threads, "wall"),
    ]
    write_result("vision", {**conditions(load_before), "cases": cases})


if __name__ == "__main__":
    main()
