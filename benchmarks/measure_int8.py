"""Measures INT8 on the CPU in the published sizes; writes ``benchmarks/results/int8.json``.

    python benchmarks/measure_int8.py [--rounds 8] [--threads 2]

Images: the INT8 vision graph, also as two streams of one thread each, against the FP32 graph of the same bundle.
Captions: `embed_text` in INT8 and in FP32 against the plain `torch.onnx.export` of the tower on inputs padded to 64.
Contestants take turns (see figures/race.py), raw seconds are kept. Random conditioned weights (see
tests/support/checkpoints.py): good for time, and worthless for the accuracy of INT8, so the gate lets everything pass
that is a number.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import align_runtime
from align_exporter.export_options import ExportOptions
from align_exporter.freshness import provenance
from align_exporter.pipeline import build_bundle
from align_reference.checkpoint import load_model
from align_reference.source import resolve
from align_runtime.backends import Runner, open_runner
from align_runtime.bundle import Bundle
from align_runtime.console import Progress
from benchmarks.machine import describe
from benchmarks.measure_text import batches, captions
from benchmarks.race import race, run_all
from support.checkpoints import crops, full_size_checkpoint
from support.plain_export import export_text_plainly

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "int8.json"
BATCHES = {1: 4, 8: 1}  # rounds of this batch for each round asked for
OPTIONS = ExportOptions(
    precisions=("int8",), int8_device="cpu", parity_max_abs={"int8": 2.0}, parity_min_cosine={"int8": -1.0}
)


def streams(runners: list[Runner], pixels: NDArray[np.uint8], pool: ThreadPoolExecutor) -> Callable[[], Any]:
    """A contestant: every runner takes its part of `pixels`, all at once."""
    parts = np.array_split(pixels, len(runners))

    def run() -> NDArray[np.float32]:
        jobs = [pool.submit(runner.run, {"pixels": part}) for runner, part in zip(runners, parts, strict=True)]
        return np.concatenate([job.result() for job in jobs])

    return run


def image_cases(bundle: Bundle, rounds: int, threads: int) -> list[dict[str, Any]]:
    files = {name: bundle.path(bundle.graph("vision", name, "cpu").file) for name in ("fp32", "int8")}
    runners = {name: open_runner(file, "cpu", threads) for name, file in files.items()}
    singles = [open_runner(files["int8"], "cpu", 1) for _ in range(threads)]
    height = bundle.manifest.preprocessing.output_size[0]
    cases = []
    with ThreadPoolExecutor(threads) as pool:
        for batch, repeats in BATCHES.items():
            pixels = np.stack([np.asarray(image) for image in crops(batch, height)])
            contestants = {name: run_all(runner, [{"pixels": pixels}]) for name, runner in runners.items()}
            if batch >= threads:
                contestants["int8, a stream per thread"] = streams(singles, pixels, pool)
            cases.append(race(f"images {batch}", contestants, repeats * rounds))
    return cases


def caption_case(bundle: Bundle, plain: Path, rounds: int, threads: int) -> dict[str, Any]:
    texts = captions()
    models = {name: align_runtime.load(bundle.folder, name, threads=threads) for name in ("fp32", "int8")}
    contestants = {
        "plain": run_all(open_runner(plain, "cpu", threads), batches(bundle, texts)),
        "fp32": lambda: models["fp32"].embed_text(texts),
        "int8": lambda: models["int8"].embed_text(texts),
    }
    alone = np.concatenate([models["int8"].embed_text([text]) for text in texts])
    case = race("captions", contestants, rounds)
    return case | {"max_abs_alone_from_batch": float(np.abs(alone - contestants["int8"]()).max())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8, help="of eight images; an even number (default: 8)")
    parser.add_argument("--threads", type=int, default=2, help="of the runtime (default: 2)")
    arguments = parser.parse_args()
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, target = full_size_checkpoint(Path(folder) / "checkpoint"), Path(folder) / "bundle"
        source, start = resolve(str(checkpoint)), time.monotonic()
        build_bundle(source, provenance(source, OPTIONS), target, OPTIONS, Progress())
        seconds, peak = time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        bundle = Bundle.open(target)
        cases = image_cases(bundle, arguments.rounds, arguments.threads)
        plain = export_text_plainly(load_model(checkpoint), Path(folder) / "plain.onnx")
        cases.append(caption_case(bundle, plain, arguments.rounds, arguments.threads))
        graphs = [
            {"file": graph.file, "bytes": bundle.manifest.graph_bytes(graph), "macs": dict(graph.content.macs)}
            for graph in bundle.manifest.graphs
            if (graph.variant, graph.target) == ("int8", "cpu")
        ]
    result = {
        "machine": describe(),
        "load": {"before": load_before, "after": os.getloadavg()},
        "threads": arguments.threads,
        "export": {"seconds": seconds, "peak_bytes": peak},
        "graphs": graphs,
        "cases": cases,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {RESULT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
