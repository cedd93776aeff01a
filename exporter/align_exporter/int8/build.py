"""The INT8 graphs of a bundle: calibrated, checked, proven, and for CPUs raced against the float ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from align_calibration.dataset.calibration_dataset import ENOUGH
from align_calibration.ranges import TensorRange
from align_calibration.run_instrumented import Batch
from align_calibration.statistics_cache import StatisticsCache
from align_exporter import parity_gate as gate
from align_exporter.calibration_inputs import CalibrationInputs
from align_exporter.graph.files import BuiltGraph, GraphFiles
from align_exporter.graph.passes import run_steps
from align_exporter.graph.passes.order import CLEAN_UP
from align_exporter.graph.specs import GraphSpec
from align_exporter.int8.calibration import Calibration
from align_exporter.int8.fidelity import FidelityTarget
from align_exporter.int8.fusion import check_fused
from align_exporter.int8.mixed_precision import MixedPrecisionGoal
from align_exporter.int8.quantize import Int8Result, int8_operators, quantize_for_cpu, quantize_for_gpu
from align_exporter.int8.speed import INT8, SpeedComparison, check_faster, image_cases, race, text_cases
from align_exporter.trt_lint import check_tensorrt
from align_runtime.errors import ParityError
from align_runtime.graph_entry import (
    CPU_TARGET,
    GPU_TARGET,
    SAMPLE_WORDS,
    Graph,
    Quantization,
)


@dataclass(frozen=True)
class Int8Builder:
    """Builds INT8 graphs of the FP32 ones in `files`; `observed` is what they are calibrated and checked on."""

    files: GraphFiles
    observed: CalibrationInputs

    def for_cpu(self, plan: GraphSpec) -> BuiltGraph:
        """Made of the FP32 graph in the bundle, for ONNX Runtime's CPU kernels."""
        tower = plan.contract.tower
        file, title = f"onnx/{tower}_model_int8_cpu.onnx", f"{tower} for cpu int8"
        model = self.files.read(plan)
        with self.files.progress.phase(f"{title}: calibration"):
            calibration = self._calibration(self.observed.for_scales(plan.contract))
            quantizing = quantize_for_cpu(model, tower, calibration, self._goal(plan))
            self._warn_of_few(tower, quantizing)
            operators = int8_operators(self.files.read(plan), tower, quantizing.kept)
        with self.files.progress.phase(f"{title}: checks"):
            run_steps(model, CLEAN_UP)
            self.files.write(model, plan.contract, file, None)
            check_fused(self.files.folder / file, operators)
        graph, measurement = self._prove_int8(plan, CPU_TARGET, file, quantizing)
        with self.files.progress.phase(f"{title}: speed"):
            quantizing = replace(quantizing, races=self._races(plan, file))
        if not self.files.options.keep_slower:
            check_faster(file, quantizing.races)
        speedup = min(race.speedup for race in quantizing.races)
        record = Quantization(quantizing.scheme, quantizing.samples, speedup, quantizing.kept)
        return BuiltGraph(replace(graph, quantization=record), measurement, quantizing=quantizing)

    def for_gpu(self, plan: GraphSpec, ranges: tuple[TensorRange, ...]) -> BuiltGraph:
        """Made of the FP32 graph in the bundle, for TensorRT. No GPU takes part: how fast it is, is not known here."""
        tower = plan.contract.tower
        file, title = f"onnx/{tower}_model_int8.onnx", f"{tower} for gpu int8"
        model = self.files.read(plan)
        with self.files.progress.phase(f"{title}: calibration"):
            calibration = self._calibration(self.observed.for_scales(plan.contract))
            quantizing, halving = quantize_for_gpu(model, calibration, self._goal(plan), ranges, self.files.options)
            self._warn_of_few(tower, quantizing)
        with self.files.progress.phase(f"{title}: checks"):
            run_steps(model, CLEAN_UP)
            self.files.write(model, plan.contract, file, None)
            check_tensorrt(self.files.folder / file)
        graph, measurement = self._prove_int8(plan, GPU_TARGET, file, quantizing)
        record = Quantization(quantizing.scheme, quantizing.samples, None, quantizing.kept)
        graph = replace(graph, islands=halving.islands, quantization=record)
        return BuiltGraph(graph, measurement, halving, quantizing)

    def _calibration(self, samples: Sequence[Batch]) -> Calibration:
        place = self.files.options.calibration_cache
        cache = None if place is None else StatisticsCache(place, self.files.progress.warn)
        return Calibration(samples, self.files.folder / "onnx", cache, self.files.progress)

    def _warn_of_few(self, tower: str, quantizing: Int8Result) -> None:
        """Unless the user's own samples are few, which was said when they were read."""
        words, count = SAMPLE_WORDS[tower], quantizing.samples
        if quantizing.trials and count < ENOUGH and not 0 < self.observed.own_count(words) < ENOUGH:
            self.files.progress.warn(
                f"INT8 scales of {tower} were measured on {count} {words}; {ENOUGH} or more of the kind that the "
                f"service sees tell better (--{words})"
            )

    def _goal(self, plan: GraphSpec) -> MixedPrecisionGoal | None:
        """What is asked of INT8 beyond the gate; None where nothing is."""
        if not self.files.options.has_target:
            return None
        return MixedPrecisionGoal(
            target=FidelityTarget(self.files.options.target_cosine, self.files.options.target_agreement),
            held_out=self._calibration(self.observed.held_out(plan.contract)),
            others=self.observed.other_embeddings(plan.contract.tower),
            tokens=self.files.checkpoint.facts.max_length,
        )

    def _prove_int8(
        self, plan: GraphSpec, target: str, file: str, quantizing: Int8Result
    ) -> tuple[Graph, gate.Measurement]:
        """The gate, which says how INT8 could come closer."""
        samples = SAMPLE_WORDS[plan.contract.tower]
        try:
            return self.files.prove(replace(plan, target=target), INT8, file, None)
        except ParityError as error:
            raise error.advised(
                f"that is how far the best of {len(quantizing.trials)} ways of calibrating on {quantizing.samples} "
                f"{samples} gets. Calibrate on more {samples} of the kind that the service sees (--{samples}), ask "
                "for less (--min-cosine), or leave it out (--int8-target)"
                if quantizing.trials
                else "INT8 gets no further on this tower. Ask for less (--min-cosine) or leave --int8 out"
            ) from None

    def _races(self, plan: GraphSpec, int8: str) -> tuple[SpeedComparison, ...]:
        """Against the float graphs that the runtime would take in its place."""
        tower = plan.contract.tower
        rivals = {"fp32": plan.file} | ({"fp16": f"onnx/{tower}_model_fp16.onnx"} if self.files.options.fp16 else {})
        files = {name: self.files.folder / file for name, file in (rivals | {INT8: int8}).items()}
        if tower == "text":
            return race(files, text_cases(self.files.answers))
        return race(files, image_cases(self.observed.samples_at_once(plan.contract)))
