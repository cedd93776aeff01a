"""Measures INT8 on the CPU in the published sizes; writes ``benchmarks/results/int8.json``.

    python -m benchmarks.measure_int8 [--rounds 8] [--threads 2]

Images: the INT8 vision graph, also as one single-threaded stream per thread, against the FP32 graph of the same bundle.
Captions: `embed_texts` in INT8 and in FP32 against the plain `torch.onnx.export` of the tower on inputs padded to 64
tokens. Timing is interleaved. The time and the peak memory of the export itself are recorded too.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import align_runtime
from align_reference.checkpoint import load_model
from align_runtime.backends import Runner, open_runner
from align_runtime.bundle import Bundle
from benchmarks.full_size_bundle import export
from benchmarks.measure_text import captions, padded_batches
from benchmarks.result_files import conditions, write_result
from benchmarks.timing import Candidate, run_batches, time_case
from support.checkpoints import crops, full_size_checkpoint
from support.plain_export import export_text_plainly

BATCHES = {1: 4, 8: 1}  # batch size → rounds for each requested round


def run_streams(runners: Sequence[Runner], pixels: NDArray[np.uint8], pool: ThreadPoolExecutor) -> Candidate:
    """A candidate in which every runner computes its part of `pixels`, all at once."""
    parts = np.array_split(pixels, len(runners))

    def run() -> NDArray[np.float32]:
        jobs = [pool.submit(runner.run, {"pixels": part}) for runner, part in zip(runners, parts, strict=True)]
        return np.concatenate([job.result() for job in jobs])

    return run


def image_cases(bundle: Bundle, rounds: int, threads: int) -> list[dict[str, Any]]:
    """INT8 against FP32 for each batch size."""
    files = {name: bundle.path(bundle.graph("vision", name, "cpu").file) for name in ("fp32", "int8")}
    runners = {name: open_runner(file, "cpu", threads) for name, file in files.items()}
    singles = [open_runner(files["int8"], "cpu", 1) for _ in range(threads)]
    height = bundle.manifest.preprocessing.output_size[0]
    cases = []
    with ThreadPoolExecutor(threads) as pool:
        for batch, repeats in BATCHES.items():
            pixels = np.stack([np.asarray(image) for image in crops(batch, height)])
            candidates = {name: run_batches(runner, [{"pixels": pixels}]) for name, runner in runners.items()}
            if batch >= threads:
                candidates["int8, a stream per thread"] = run_streams(singles, pixels, pool)
            cases.append(time_case(f"images {batch}", candidates, repeats * rounds))
    return cases


def caption_case(bundle: Bundle, plain: Path, rounds: int, threads: int) -> dict[str, Any]:
    """INT8 and FP32 against the plain export; also how much an embedding depends on the batch."""
    texts = captions()
    models = {name: align_runtime.load(bundle.folder, precision=name, threads=threads) for name in ("fp32", "int8")}
    candidates = {
        "plain": run_batches(open_runner(plain, "cpu", threads), padded_batches(bundle, texts)),
        "fp32": lambda: models["fp32"].embed_texts(texts),
        "int8": lambda: models["int8"].embed_texts(texts),
    }
    alone = np.concatenate([models["int8"].embed_texts([text]) for text in texts])
    case = time_case("captions", candidates, rounds)
    return case | {"max_abs_alone_from_batch": float(np.abs(alone - candidates["int8"]()).max())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8, help="rounds of eight images, an even number (default: 8)")
    parser.add_argument("--threads", type=int, default=2, help="threads of the runtime (default: 2)")
    options = parser.parse_args()
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, target = full_size_checkpoint(Path(folder) / "checkpoint"), Path(folder) / "bundle"
        start = time.monotonic()
        export(checkpoint, target)
        seconds, peak = time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        bundle = Bundle.open(target)
        cases = image_cases(bundle, options.rounds, options.threads)
        plain = export_text_plainly(load_model(checkpoint), Path(folder) / "plain.onnx")
        cases.append(caption_case(bundle, plain, options.rounds, options.threads))
        graphs = [
            {"file": graph.file, "bytes": bundle.manifest.graph_bytes(graph), "macs": dict(graph.content.macs)}
            for graph in bundle.manifest.graphs
            if (graph.variant, graph.target) == ("int8", "cpu")
        ]
    result = {
        **conditions(load_before),
        "threads": options.threads,
        "export": {"seconds": seconds, "peak_bytes": peak},
        "graphs": graphs,
        "cases": cases,
    }
    write_result("int8", result)


if __name__ == "__main__":
    main()
