"""What a build knows about itself: the record that a report is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_calibration.dataset.calibration_dataset import CalibrationDataset
from align_calibration.ranges import TensorRange
from align_exporter.int8.calibrate import ObserverTrial
from align_exporter.int8.fidelity import FidelityTarget
from align_exporter.int8.mixed_precision import Candidate
from align_exporter.int8.speed import SpeedComparison
from align_runtime.errors import ParityError
from align_runtime.graph_entry import Graph
from align_runtime.manifest import ModelFacts, Provenance
from align_runtime.preprocessing import ImagePreprocessing

SCHEMA_VERSION = 1
EDGES = tuple(quarter / 4 for quarter in range(-40, 1))  # 1e-10 to 1e0 in quarters of a decade


@dataclass(frozen=True)
class ErrorHistogram:
    """How often components of embeddings are how far from the reference.

    Attributes:
        edges: n increasing values of log10 |difference|.
        counts: n + 1 numbers of components. ``counts[i]`` lie from ``edges[i - 1]`` on and below ``edges[i]``; the
            first are below every edge, exact zeros with them; the last are at or above every edge, or not a number, so
            that nothing is left out.

    Raises:
        ValueError: another number of counts: a mistake of the caller.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.edges) + 1:
            raise ValueError(f"{len(self.counts)} counts for {len(self.edges)} edges; one more than edges was expected")

    @classmethod
    def of(cls, differences: NDArray[np.floating]) -> ErrorHistogram:
        """The histogram of `differences`, any shape, with or without signs, over `EDGES`."""
        with np.errstate(divide="ignore"):
            logarithms = np.log10(np.abs(differences.astype(np.float64).ravel()))
        bins = np.digitize(logarithms, EDGES)  # a NaN goes behind the last edge
        return cls(EDGES, tuple(np.bincount(bins, minlength=len(EDGES) + 1).tolist()))


@dataclass(frozen=True)
class GraphRecord:
    """A graph of the bundle and all that was measured of it.

    Attributes:
        graph: as it stands in the manifest.
        bytes: size of the graph with its external data, also where another graph shares that.
        errors: of all components of all rows.
        cosines: of every compared row with the reference.
        labels: of the same rows; a sample that was compared in several batches occurs as often.
        casts: how many casts an FP16 graph has more than its FP32 twin.
        ruled: names of the operators that FP16's rules kept in FP32, whatever the values are.
        trials: ways of calibrating an INT8 graph, the best, which was taken, first.
        target: what was asked of an INT8 graph; None where nothing was.
        points: graphs that were tried for it, the one that was taken first.
        races: an INT8 graph against the float graphs of its tower.

    Raises:
        ValueError: as many labels as cosines are needed: a mistake of the caller.
    """

    graph: Graph
    bytes: int
    errors: ErrorHistogram
    cosines: tuple[float, ...]
    labels: tuple[str, ...]
    casts: int
    ruled: tuple[str, ...]
    trials: tuple[ObserverTrial, ...] = ()
    target: FidelityTarget | None = None
    points: tuple[Candidate, ...] = ()
    races: tuple[SpeedComparison, ...] = ()

    def __post_init__(self) -> None:
        if len(self.cosines) != len(self.labels):
            raise ValueError(f"{len(self.cosines)} cosines under {len(self.labels)} labels")

    @property
    def failure(self) -> str | None:
        """What the parity gate says against the graph; None where it is within its limits."""
        try:
            self.graph.parity.check(self.graph.file, self.graph.limits)
        except ParityError as error:
            return str(error)
        return None

    def to_json(self) -> dict[str, Any]:
        races = [asdict(race) | {"baseline": race.baseline, "speedup": race.speedup} for race in self.races]
        return asdict(self) | {"graph": self.graph.to_json(), "passed": self.failure is None, "races": races}


@dataclass(frozen=True)
class Phase:
    """A step of the build and how many seconds it took."""

    title: str
    seconds: float


@dataclass(frozen=True)
class BuildRecord:
    """Everything in the report.

    Attributes:
        provenance, model, preprocessing: as they stand in the manifest.
        graphs: in the order of the manifest.
        ranges: tower → its tensors in the order of the graph; empty where nothing was measured, because no FP16 graph
            was built.
        headroom: a tensor whose ``max_abs · headroom`` exceeds 65504, the largest FP16 number, stays FP32.
        phases: in the order in which they ran.
        built: UTC, ISO 8601.
        machine: what the build ran on, e.g. ``{"cpu": …, "cores": …}``.
        samples: the user's own that ranges were measured on too; None where there were none.
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
    samples: CalibrationDataset | None = None

    def kept(self, tower: str) -> Mapping[str, str]:
        """The operators of `tower` that stayed FP32 in any of its FP16 graphs: name → ``"rule"`` or ``"island"``."""
        records = [record for record in self.graphs if record.graph.tower == tower]
        ruled = dict.fromkeys((name for record in records for name in record.ruled), "rule")
        islands = (island for record in records for island in record.graph.islands)
        return ruled | dict.fromkeys((name for island in islands for name in island.nodes), "island")

    def to_json(self) -> dict[str, Any]:
        """The content of ``report.json``. What is infinite or not a number is null, for JSON has no word for it."""
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
            "samples": None if self.samples is None else self.samples.to_json(),
            "phases": [asdict(phase) for phase in self.phases],
        }
        return {key: _finite(value) for key, value in values.items()}


def _finite(value: Any) -> Any:
    """`value` in JSON's own types, every float in it finite or None."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
