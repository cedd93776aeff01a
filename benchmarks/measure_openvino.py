"""Measures OpenVINO beside ONNX Runtime on the CPU in the published sizes; writes ``benchmarks/results/openvino.json``.

    python -m benchmarks.measure_openvino [--rounds 8] [--threads 2] [--folder build/bench]

The same bundle on ``device="cpu"`` (FP32 and INT8) and on ``device="openvino"`` (FP32 and, where the processor has it,
bfloat16), as a user loads it; timing is interleaved. Parity is that of `align-verify`, with the bundle's golden inputs.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import align_runtime
from align_exporter.builtin_samples import captions
from align_runtime import golden
from align_runtime.bundle import Bundle
from align_runtime.errors import BackendUnavailableError
from align_runtime.processors import available_cores
from align_runtime.selftest import check_graph
from benchmarks.full_size_bundle import FOLDER, prepare
from benchmarks.result_files import conditions, write_result
from benchmarks.timing import Candidate, time_case

CANDIDATES = (("cpu", "fp32"), ("cpu", "int8"), ("openvino", "fp32"), ("openvino", "bf16"))
BATCHES = (1, 8)
CALLERS = 4  # threads that embed one input after the other
Models = dict[str, align_runtime.Model]


def opened(bundle: Bundle, threads: int, stack: ExitStack) -> Models:
    """The bundle by device and precision; what this processor cannot compute is left out."""
    models = Models()
    for device, precision in CANDIDATES:
        try:
            model = align_runtime.load(bundle.folder, device=device, precision=precision, threads=threads)
        except BackendUnavailableError as error:
            print(f"left out: {device} {precision}: {error}", flush=True)
        else:
            models[f"{device} {precision}"] = stack.enter_context(model)
            model.warmup()
    return models


def cases(models: Models, pixels: NDArray[np.uint8], texts: list[str], rounds: int) -> Iterator[dict[str, Any]]:
    """Images and captions by batch, and one by one from `CALLERS` threads at once."""
    for batch in BATCHES:
        images: dict[str, Candidate] = {
            name: lambda model=model, batch=batch: model.embed_pixels(pixels[:batch]) for name, model in models.items()
        }
        yield {"tower": "vision", "batch": batch} | time_case(f"images {batch}", images, rounds)
        some = texts if batch > 1 else texts[:1]
        embeds: dict[str, Candidate] = {
            name: lambda model=model, some=some: model.embed_texts(some) for name, model in models.items()
        }
        yield {"tower": "text", "batch": len(some)} | time_case(f"captions {len(some)}", embeds, rounds)
    with ThreadPoolExecutor(CALLERS) as pool:

        def all_at_once(model: align_runtime.Model) -> NDArray[np.float32]:
            rows = [pixels[row : row + 1] for row in range(len(pixels))]
            return np.concatenate(list(pool.map(model.embed_pixels, rows)))

        callers: dict[str, Candidate] = {name: lambda model=model: all_at_once(model) for name, model in models.items()}
        yield {"tower": "vision", "batch": len(pixels), "callers": CALLERS} | time_case("callers", callers, rounds)


def parity(bundle: Bundle) -> list[dict[str, Any]]:
    """Distance from the reference of every graph that OpenVINO runs, and its limits."""
    expected, found = golden.read(bundle), []
    for graph in bundle.graphs_on("openvino"):
        try:
            check = check_graph(bundle, graph, expected, "openvino", None)
        except BackendUnavailableError:
            continue
        assert check.parity is not None
        found.append(
            {"file": graph.file, "tower": graph.tower, "variant": graph.variant, "failures": check.failures}
            | {"limits": vars(graph.limits), "parity": check.parity.to_json()}
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8, help="of each candidate, an even number (default: 8)")
    parser.add_argument("--threads", type=int, default=available_cores(), help="of one run (default: all cores)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="checkpoint and bundle (default: build/bench)")
    options = parser.parse_args()
    load, bundle = os.getloadavg(), prepare(options.folder).bundle
    found = parity(bundle)
    pixels = golden.read(bundle).pixels[: max(BATCHES)]
    with ExitStack() as stack:
        models = opened(bundle, options.threads, stack)
        measured = list(cases(models, pixels, captions(), options.rounds))
    write_result("openvino", conditions(load) | {"threads": options.threads, "cases": measured, "parity": found})


if __name__ == "__main__":
    main()
