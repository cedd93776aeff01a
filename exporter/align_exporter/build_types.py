"""What the steps of an export hand to each other: the run, an FP32 graph, the draft of a variant, the built graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import onnx_ir as ir

from align_calibration.histograms import Histogram
from align_calibration.ranges import TensorRange, measure_ranges
from align_calibration.run_instrumented import Batch, float_values
from align_calibration.statistics_cache import StatisticsCache
from align_exporter.calibration_inputs import CalibrationInputs
from align_exporter.checkpoint.read_checkpoint import Checkpoint
from align_exporter.export_options import ExportOptions
from align_exporter.graph.ir_helpers import name_of
from align_exporter.graph.passes.order import PassCount
from align_exporter.graph.specs import GraphSpec
from align_exporter.int8.calibrate import ObserverTrial
from align_exporter.int8.calibration_samples import Calibration
from align_exporter.int8.fidelity import FidelityTarget
from align_exporter.int8.mixed_precision import Candidate
from align_exporter.int8.prepare_weights import RoundedLayers
from align_exporter.int8.speed import SpeedComparison
from align_exporter.parity_gate import Measurement
from align_exporter.variants import INT8
from align_runtime.golden import Golden
from align_runtime.graph_entry import Graph, Island
from align_runtime.progress import Progress

PER_TOKEN = "per token"  # noqa: S105 (no password); the scheme of activations whose scales follow from each input


@dataclass(frozen=True)
class Run:
    """One export.

    Attributes:
        answers: the built-in samples and the reference's embeddings of them, which every graph is compared with.
        inputs: what activation ranges and INT8 scales are measured on.
        folder: the bundle that is being written.
    """

    checkpoint: Checkpoint
    answers: Golden
    inputs: CalibrationInputs
    folder: Path
    options: ExportOptions
    progress: Progress


@dataclass(frozen=True)
class BaseGraph:
    """An FP32 graph in the bundle, from which other variants are built.

    Attributes:
        model: in memory; builders work on a `copy`.
        passes: what the graph passes did.
        rounded: weights that INT8 graphs share; filled by the first of them.
    """

    run: Run
    spec: GraphSpec
    model: ir.Model
    passes: tuple[PassCount, ...] = ()
    rounded: RoundedLayers = field(default_factory=dict)

    @property
    def tower(self) -> str:
        """``"vision"`` or ``"text"``."""
        return self.spec.contract.tower

    @property
    def data_folder(self) -> Path:
        """Where temporary graphs may be written: beside the external data of `model`."""
        return (self.run.folder / self.spec.file).parent

    def copy(self) -> ir.Model:
        """A model to change; it shares the tensors of `model`, which are never changed in place."""
        model = self.model.clone()
        for value in [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]:
            if value.dtype is not None:
                value.type = ir.TensorType(value.dtype)  # clones share these, and setting a dtype changes them in place
        return model

    @cached_property
    def calibration(self) -> Calibration:
        """What INT8 graphs are calibrated on."""
        place, progress = self.run.options.calibration_cache, self.run.progress
        cache = None if place is None else StatisticsCache(place, progress.warn)
        return Calibration(self.run.inputs.for_scales(self.spec.contract), self.data_folder, cache, progress)

    @cached_property
    def histograms(self) -> Mapping[str, Histogram]:
        """Histograms of every tensor over the calibration samples, measured once for all INT8 graphs."""
        return self.calibration.histograms(self.model, [name_of(value) for value in float_values(self.model.graph)])

    @cached_property
    def ranges(self) -> tuple[TensorRange, ...]:
        """The activation range of every tensor, measured once for all variants that need it."""
        options = self.run.options
        if self.tower == "text" or options.has_int8_target or not any(row.name == INT8 for row in options.variants):
            return self.ranges_of(self.model)
        # INT8 needs the extremes of all images of the dataset anyway.
        largest = {name: float(max(-found.lows.min(), found.highs.max())) for name, found in self.histograms.items()}
        return self._ranges(self.model, *self.run.inputs.for_ranges(self.spec.contract, images=False), largest)

    def ranges_of(self, model: ir.Model) -> tuple[TensorRange, ...]:
        """The activation ranges of `model`, which may have other tensors and has the same inputs."""
        return self._ranges(model, *self.run.inputs.for_ranges(self.spec.contract), {})

    def _ranges(
        self, model: ir.Model, batches: Iterable[Batch], count: int, largest: Mapping[str, float]
    ) -> tuple[TensorRange, ...]:
        bar = self.run.progress.bar(f"{self.tower}: activation ranges", batches, count)
        return measure_ranges(model, bar, self.data_folder, largest)


@dataclass(frozen=True)
class Fp16Result:
    """How the FP16 values of a graph came about.

    Attributes:
        ranges: activation ranges of the FP32 graph.
        ruled: names of the operators that stay FP32 in every FP16 graph.
        islands: what else stays FP32, and why.
        casts: number of casts added.
        operators: names of all operators of the FP32 graph, which ``--fp16-keep`` may match.
    """

    ranges: tuple[TensorRange, ...]
    ruled: tuple[str, ...]
    islands: tuple[Island, ...]
    casts: int
    operators: tuple[str, ...]


@dataclass(frozen=True)
class Int8Result:
    """How an INT8 graph came about.

    Attributes:
        samples: calibration images or captions that scales were measured on.
        trials: of observers, the chosen one first, then the best; none where activations are quantized dynamically.
        first_layers: names of the first layers where they stay float (see `align_exporter.int8.first_layers`).
        migration: what was done to outlier channels (see `align_exporter.int8.migrate_outliers`).
        target: the fidelity that was asked for; None without one.
        candidates: the mixed-precision graphs that were tried for the target, the chosen one first.
        speed: measured against the float graphs of the tower on the build machine.
    """

    samples: int
    trials: tuple[ObserverTrial, ...]
    first_layers: tuple[str, ...] = ()
    migration: str = "none"
    target: FidelityTarget | None = None
    candidates: tuple[Candidate, ...] = ()
    speed: tuple[SpeedComparison, ...] = ()

    @property
    def scheme(self) -> str:
        """The observer, or `PER_TOKEN`."""
        return self.trials[0].scheme if self.trials else PER_TOKEN

    @property
    def kept(self) -> tuple[str, ...]:
        """Parts that stay float: the first layers, and those for the target."""
        return (*self.first_layers, *(self.candidates[0].kept if self.candidates else ()))

    @property
    def speedup(self) -> float | None:
        """The smallest ratio over all inputs, each against the fastest float graph; None where none was measured."""
        return min((comparison.speedup for comparison in self.speed), default=None)


DEFAULT_ADVICE = (
    "the graph differs from the reference by more than allowed; docs/accuracy.md says where the limits come from, "
    "--parity-max-abs and --parity-min-cosine replace them"
)


@dataclass(frozen=True)
class Draft:
    """The graph of a variant before it is written.

    Attributes:
        model: a copy of the base graph's, changed.
        kernels: how many operators ONNX Runtime has to compute in INT8, by operator; empty where it does not run it.
        advice: what to do where the parity gate refuses the graph.
    """

    model: ir.Model
    fp16: Fp16Result | None = None
    int8: Int8Result | None = None
    kernels: Mapping[str, int] = field(default_factory=dict)
    advice: str = DEFAULT_ADVICE


@dataclass(frozen=True)
class BuiltGraph:
    """A graph in the bundle, its embeddings of the built-in samples, and how it came about; `passes` of FP32 graphs."""

    graph: Graph
    measurement: Measurement
    fp16: Fp16Result | None = None
    int8: Int8Result | None = None
    passes: tuple[PassCount, ...] = ()
