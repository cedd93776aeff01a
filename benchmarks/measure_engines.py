"""Measures builds of TensorRT for RTX in the published sizes; writes ``benchmarks/results/engines.json``.

    python -m benchmarks.measure_engines [--bundle FOLDER]

The engines are built on this machine's CPU; nothing runs them.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from align_exporter.engine.build import build_engines
from align_exporter.engine.request import EngineOutcome, EngineRequest
from align_exporter.engine.toolkits import open_toolkits
from align_exporter.freshness import provenance
from align_exporter.pipeline import build_bundle
from align_reference.source import resolve
from align_runtime.bundle import Bundle
from align_runtime.engine_targets import DEFAULT_CAPABILITIES, RTX, TURING
from align_runtime.engines import EngineOptions
from align_runtime.progress import Progress
from benchmarks.full_size_bundle import OPTIONS
from benchmarks.result_files import describe_machine, write_result
from support.checkpoints import full_size_checkpoint

EXPORT = replace(OPTIONS, precisions=("fp16", "int8"), int8_device="gpu")
RANGES = EngineOptions(ranges=True)
REQUESTS = (
    EngineRequest(("fp32", "fp16", "int8"), options=RANGES, runtime=RTX, capabilities=DEFAULT_CAPABILITIES),
    EngineRequest(("fp16", "int8"), options=RANGES, runtime=RTX, capabilities=(TURING,)),
    EngineRequest(("fp16",), runtime=RTX, capabilities=("8.9",)),  # a profile for each batch and length
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="a bundle of the published sizes with FP16 and INT8 for GPUs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.bundle or export(Path(temporary))
        shutil.rmtree(folder / "engines", ignore_errors=True)
        built = [describe(folder, outcome) for request in REQUESTS for outcome in build(folder, request)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # the kernel counts in KiB
    write_result("engines", {"machine": describe_machine(), "peak_bytes": peak, "engines": built})


def export(folder: Path) -> Path:
    source = resolve(str(full_size_checkpoint(folder / "checkpoint")))
    build_bundle(source, provenance(source, EXPORT), folder / "bundle", EXPORT, Progress())
    return folder / "bundle"


def build(folder: Path, request: EngineRequest) -> list[EngineOutcome]:
    return build_engines(folder, request, open_toolkits(request), True, Progress())


def describe(folder: Path, outcome: EngineOutcome) -> dict[str, Any]:
    entry, bundle = outcome.entry, Bundle.open(folder)
    graph = bundle.graph(entry.tower, entry.variant, "tensorrt")
    return {**entry.to_json(), "graph_bytes": bundle.manifest.graph_bytes(graph)}


if __name__ == "__main__":
    main()
