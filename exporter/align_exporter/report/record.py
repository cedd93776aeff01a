"""The record of a build, from which the report is made.

``report.json`` is the record with `SCHEMA_VERSION`. Its keys:

==================  ====================================================================================================
``built``           time, UTC, ISO 8601
``machine``         ``cpu``, ``cores``, ``system`` of the build machine
``provenance``      as in ``align.json``, like ``model`` and ``preprocessing``
``graphs``          one entry per graph, in the order of ``align.json``:
                    ``graph`` (its entry there), ``bytes``, ``passed`` (the parity gate), ``errors`` (``edges`` in
                    log10, ``counts``), ``cosines`` and ``labels`` (of every compared row), ``casts``, ``kept_by_rule``,
                    ``passes`` (of an FP32 graph: ``name``, ``rewrites``, and ``expected`` or null for any number);
                    of INT8 graphs also ``observers`` (``observer``, ``error``; the first was chosen), ``target``
                    (``cosine``, ``agreement``), ``candidates`` (``kept``, ``int8_share``, ``cosine``, ``agreement``;
                    the first was chosen), ``speed`` (``case``, ``baseline``, ``speedup``, ``seconds`` of every round by
                    variant), ``first_layers`` (names, where they stay float) and ``outlier_channels`` (what was done to
                    them)
``headroom``        factor between the largest value on the samples and the FP16 maximum
``ranges``          tower → activation ranges, see `align_calibration.ranges.TensorRange`
``calibration``     the user's calibration dataset, or null
``phases``          ``title`` and ``seconds`` of each step of the build
==================  ====================================================================================================

Values that are infinite or not a number are null.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_calibration.dataset.calibration_dataset import CalibrationDataset
from align_calibration.ranges import TensorRange
from align_exporter.build_types import BuiltGraph
from align_exporter.graph.passes.order import PassCount
from align_exporter.int8.calibrate import ObserverTrial
from align_exporter.int8.fidelity import FidelityTarget
from align_exporter.int8.mixed_precision import Candidate
from align_exporter.int8.speed import SpeedComparison
from align_runtime.errors import ParityError
from align_runtime.graph_entry import Graph
from align_runtime.manifest import Manifest, ModelFacts, Provenance
from align_runtime.parity import cosines
from align_runtime.preprocessing import ImagePreprocessing

SCHEMA_VERSION = 2
EDGES = tuple(quarter / 4 for quarter in range(-40, 1))  # 1e-10 to 1e0 in quarters of a decade


@dataclass(frozen=True)
class ErrorHistogram:
    """Histogram of the absolute differences between components of embeddings and the reference.

    Attributes:
        edges: n increasing values of log10 |difference|.
        counts: n + 1 numbers of components. ``counts[i]`` are at or above ``edges[i - 1]`` and below ``edges[i]``; the
            first are below every edge, exact zeros included; the last are at or above every edge, or not a number.

    Raises:
        ValueError: the number of counts is wrong, a mistake of the caller.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.edges) + 1:
            raise ValueError(f"{len(self.counts)} counts for {len(self.edges)} edges; expected one more than edges")

    @classmethod
    def of(cls, differences: NDArray[np.floating]) -> ErrorHistogram:
        """Returns the histogram of `differences`, of any shape and sign, over `EDGES`."""
        with np.errstate(divide="ignore"):
            logarithms = np.log10(np.abs(differences.astype(np.float64).ravel()))
        bins = np.digitize(logarithms, EDGES)  # NaN goes after the last edge
        return cls(EDGES, tuple(np.bincount(bins, minlength=len(EDGES) + 1).tolist()))


@dataclass(frozen=True)
class GraphRecord:
    """A graph of the bundle and everything that was measured on it.

    Attributes:
        graph: its entry in the manifest.
        bytes: size of the graph with its external data, even if other graphs share that.
        errors: of all components of all compared rows.
        cosines: of every compared row with the reference.
        labels: of the same rows; a sample that was compared in several batches occurs several times.
        casts: number of casts that an FP16 graph has in addition to those of its FP32 graph.
        kept_by_rule: names of the operators that the rules of FP16 keep in FP32, independent of values.
        trials: observers of an INT8 graph; the first was chosen, the others are sorted by their error.
        target: fidelity requested of an INT8 graph; None without one.
        candidates: INT8 graphs that were tried for the target; the first was chosen.
        speed: an INT8 graph against the float graphs of its tower, per input.
        first_layers, migration: as in `align_exporter.build_types.Int8Result`.
        passes: what the graph passes did on an FP32 graph.

    Raises:
        ValueError: the numbers of labels and cosines differ, a mistake of the caller.
    """

    graph: Graph
    bytes: int
    errors: ErrorHistogram
    cosines: tuple[float, ...]
    labels: tuple[str, ...]
    casts: int
    kept_by_rule: tuple[str, ...]
    trials: tuple[ObserverTrial, ...] = ()
    target: FidelityTarget | None = None
    candidates: tuple[Candidate, ...] = ()
    speed: tuple[SpeedComparison, ...] = ()
    first_layers: tuple[str, ...] = ()
    migration: str = "none"
    passes: tuple[PassCount, ...] = ()

    def __post_init__(self) -> None:
        if len(self.cosines) != len(self.labels):
            raise ValueError(f"{len(self.cosines)} cosines for {len(self.labels)} labels")

    @property
    def failure(self) -> str | None:
        """Message of the parity gate; None if the graph is within its limits."""
        try:
            self.graph.parity.check(self.graph.file, self.graph.limits)
        except ParityError as error:
            return str(error)
        return None

    @property
    def slowest(self) -> SpeedComparison | None:
        """The comparison with the smallest speedup; None if speed was not measured."""
        return min(self.speed, key=lambda comparison: comparison.speedup, default=None)

    def to_json(self) -> dict[str, Any]:
        """Returns the entry of ``report.json``."""
        values: dict[str, Any] = {
            "graph": self.graph.to_json(),
            "bytes": self.bytes,
            "passed": self.failure is None,
            "errors": asdict(self.errors),
            "cosines": self.cosines,
            "labels": self.labels,
            "casts": self.casts,
            "kept_by_rule": self.kept_by_rule,
            "passes": [asdict(count) for count in self.passes],
        }
        if self.graph.quantization is None:
            return values
        return values | {
            "observers": [
                {"observer": trial.scheme, "error": trial.error, "samples": trial.samples} for trial in self.trials
            ],
            "first_layers": self.first_layers,
            "outlier_channels": self.migration,
            "target": None if self.target is None else asdict(self.target),
            "candidates": [
                {"kept": candidate.kept, "int8_share": candidate.share, **asdict(candidate.fidelity)}
                for candidate in self.candidates
            ],
            "speed": [
                {
                    "case": comparison.case,
                    "baseline": comparison.baseline,
                    "speedup": comparison.speedup,
                    "seconds": comparison.seconds,
                }
                for comparison in self.speed
            ],
        }


@dataclass(frozen=True)
class Phase:
    """A step of the build and its duration in seconds."""

    title: str
    seconds: float


@dataclass(frozen=True)
class BuildRecord:
    """The content of the report.

    Attributes:
        provenance, model, preprocessing: as in the manifest.
        graphs: in the order of the manifest.
        ranges: tower → activation ranges, in the order of the graph; empty if no FP16 graph was built.
        headroom: a tensor whose ``max_abs · headroom`` exceeds the FP16 maximum, 65504, stays in FP32.
        phases: in the order in which they ran.
        built: UTC, ISO 8601.
        machine: the build machine: ``{"cpu": …, "cores": …, "system": …}``.
        calibration: the user's calibration dataset; None if only built-in samples were used.
    """

    provenance: Provenance
    model: ModelFacts
    preprocessing: ImagePreprocessing
    graphs: tuple[GraphRecord, ...]
    ranges: Mapping[str, tuple[TensorRange, ...]]
    headroom: float
    phases: tuple[Phase, ...]
    built: str
    machine: Mapping[str, str]
    calibration: CalibrationDataset | None = None

    def kept(self, tower: str) -> Mapping[str, str]:
        """Returns why operators of `tower` stay in FP32 in its FP16 graphs: name → ``"rule"`` or ``"island"``."""
        records = [record for record in self.graphs if record.graph.tower == tower]
        by_rule = dict.fromkeys((name for record in records for name in record.kept_by_rule), "rule")
        islands = (island for record in records for island in record.graph.islands)
        return by_rule | dict.fromkeys((name for island in islands for name in island.nodes), "island")

    def to_json(self) -> dict[str, Any]:
        """Returns the content of ``report.json``."""
        values = {
            "schema_version": SCHEMA_VERSION,
            "built": self.built,
            "machine": dict(self.machine),
            "provenance": asdict(self.provenance),
            "model": asdict(self.model),
            "preprocessing": self.preprocessing.to_json(),
            "graphs": [record.to_json() for record in self.graphs],
            "headroom": self.headroom,
            "ranges": {tower: [asdict(tensor) for tensor in tensors] for tower, tensors in self.ranges.items()},
            "calibration": None if self.calibration is None else self.calibration.to_json(),
            "phases": [asdict(phase) for phase in self.phases],
        }
        return {key: _finite(value) for key, value in values.items()}


def _finite(value: Any) -> Any:
    """Returns `value` in JSON's types, with None for every float that is infinite or not a number."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
        first_layers=entry.int8.first_layers if entry.int8 else (),
        migration=entry.int8.migration if entry.int8 else "none",
        passes=entry.passes,
    )


def _processor() -> str:
    """Returns the name of the processor, which only /proc/cpuinfo has on Linux."""
    if CPUINFO.is_file():
        for line in CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
