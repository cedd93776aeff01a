"""Measures the vision graph on the CPU in the published sizes; writes ``benchmarks/results/vision.json``.

    python benchmarks/measure_vision.py [--rounds 8] [--threads 2]

The baseline is transformers' vision tower as `torch.onnx.export` writes it, run by the same ONNX Runtime on images
that are normalised already; ours gets bytes and normalises them within the time that is measured. OpenVINO runs our
graph in float32; the baseline it refuses. Contestants take turns (see figures/race.py), first on one thread by the
time of the processor, which stands on a busy machine too, then on several by the wall clock. Raw seconds are kept.
Random conditioned weights (see tests/support/checkpoints.py): good for time and FP32 parity.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from align_exporter.checkpoint.assets import read_preprocessing
from align_exporter.export_options import DEFAULT_OPSET
from align_exporter.graph.contract import vision_contract
from align_exporter.graph.passes import run_steps
from align_exporter.graph.passes.order import vision_steps
from align_exporter.graph.towers import VisionTower
from align_exporter.graph.trace import trace
from align_exporter.pipeline import write_graph
from align_reference.checkpoint import load_model
from align_runtime.backends import open_runner
from benchmarks.machine import describe
from benchmarks.race import race, run_all
from support.checkpoints import crops, full_size_checkpoint, full_size_config
from support.openvino_runner import OpenVinoRunner
from support.oracle import oracle_of
from support.plain_export import export_vision_plainly

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "vision.json"
BATCHES = {1: 4, 8: 1}  # rounds of this batch for each round asked for
CLOCKS = {"processor": time.process_time, "wall": time.perf_counter}


def export(checkpoint: Path, file: Path) -> Path:
    """The vision graph as align-export writes it."""
    model, preprocessing = load_model(checkpoint), read_preprocessing(checkpoint)
    contract = vision_contract(model.config, preprocessing.output_size, "uint8")
    tower = VisionTower(model, *preprocessing.scale_and_offset()).eval()
    graph = trace(tower, contract, model.config.text.max_position_embeddings, DEFAULT_OPSET)
    run_steps(graph, vision_steps(model.config))
    write_graph(graph, "vision", file)
    return file


def run_races(graph: Path, plain: Path, size: int, rounds: int, threads: int, clock: str) -> list[dict[str, Any]]:
    """The cases of one clock, one for each batch."""
    runners = {
        "plain": open_runner(plain, "cpu", threads),
        "openvino": OpenVinoRunner(graph, threads),
        "graph": open_runner(graph, "cpu", threads),
    }
    cases = []
    for batch, repeats in BATCHES.items():
        pixels = np.stack([np.asarray(image) for image in crops(batch, size)])
        normalised = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1)
        inputs = {name: {"pixel_values": normalised} if name == "plain" else {"pixels": pixels} for name in runners}
        contestants = {name: run_all(runner, [inputs[name]]) for name, runner in runners.items()}
        case = race(f"{clock} {batch}", contestants, repeats * rounds, CLOCKS[clock])
        cases.append({"batch": batch, "clock": clock, "threads": threads, **case})
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8, help="of eight images; an even number (default: 8)")
    parser.add_argument("--threads", type=int, default=2, help="of either runtime, by the wall clock (default: 2)")
    options = parser.parse_args()
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = full_size_checkpoint(Path(folder) / "checkpoint")
        graph = export(checkpoint, Path(folder) / "vision.onnx")
        oracle = oracle_of(load_model(checkpoint), full_size_config()).vision_model
        plain = export_vision_plainly(oracle, Path(folder) / "plain.onnx")
        size = oracle.config.image_size
        del oracle
        cases = [
            *run_races(graph, plain, size, options.rounds, 1, "processor"),
            *run_races(graph, plain, size, options.rounds, options.threads, "wall"),
        ]
    result = {"machine": describe(), "load": {"before": load_before, "after": os.getloadavg()}, "cases": cases}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {RESULT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
