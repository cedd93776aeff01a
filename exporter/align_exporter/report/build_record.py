"""Collects what a build measured and decided into the record of its report."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from align_calibration.dataset.calibration_dataset import CalibrationDataset
from align_exporter.build_types import BuiltGraph
from align_exporter.report.record import BuildRecord, ErrorHistogram, GraphRecord, Phase
from align_runtime.manifest import Manifest
from align_runtime.parity import cosines

CPUINFO = Path("/proc/cpuinfo")


def build_record(
    manifest: Manifest,
    built: Sequence[BuiltGraph],
    headroom: float,
    phases: Sequence[tuple[str, float]],
    calibration: CalibrationDataset | None,
) -> BuildRecord:
    """Returns the record of a build.

    Args:
        manifest: of the bundle, with the graphs in `built`.
        headroom: of FP16, see `BuildRecord`.
        phases: title and seconds of each.
        calibration: the user's calibration dataset, if any.
    """
    return BuildRecord(
        provenance=manifest.provenance,
        model=manifest.model,
        preprocessing=manifest.preprocessing,
        graphs=tuple(_graph_record(manifest, entry) for entry in built),
        ranges={entry.graph.tower: entry.fp16.ranges for entry in built if entry.fp16},
        headroom=headroom,
        phases=tuple(Phase(title, seconds) for title, seconds in phases),
        built=datetime.now(UTC).isoformat(timespec="seconds"),
        calibration=calibration,
        machine={"cpu": _processor(), "cores": str(os.cpu_count()), "system": platform.platform(terse=True)},
    )


def _graph_record(manifest: Manifest, entry: BuiltGraph) -> GraphRecord:
    measurement = entry.measurement
    actual, expected = measurement.actual.astype(np.float64), measurement.expected.astype(np.float64)
    return GraphRecord(
        graph=entry.graph,
        bytes=manifest.graph_bytes(entry.graph),
        errors=ErrorHistogram.of(actual - expected),
        cosines=tuple(cosines(actual, expected).tolist()),
        labels=measurement.labels,
        casts=entry.fp16.casts if entry.fp16 else 0,
        kept_by_rule=entry.fp16.ruled if entry.fp16 else (),
        trials=entry.int8.trials if entry.int8 else (),
        target=entry.int8.target if entry.int8 else None,
        candidates=entry.int8.candidates if entry.int8 else (),
        speed=entry.int8.speed if entry.int8 else (),
    )


def _processor() -> str:
    """Returns the name of the processor, which only /proc/cpuinfo has on Linux."""
    if CPUINFO.is_file():
        for line in CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
