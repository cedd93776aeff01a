"""From a plan to proven ONNX files: trace, passes, checks, the parity gate; then the same graph in FP16 and INT8."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import onnx_ir as ir

from align_calibration.cache import StatisticsCache
from align_calibration.observe import Batch
from align_calibration.ranges import TensorRange, measure_ranges
from align_exporter import gate
from align_exporter.checkpoint import Checkpoint
from align_exporter.content import proven_content
from align_exporter.contract import GraphContract
from align_exporter.fp16.halve import Halving, halve
from align_exporter.fp16.rounding import rounded
from align_exporter.graph_check import check_file, check_operators
from align_exporter.int8.acceptance import INT8, Race, check_faster, picture_cases, race, text_cases
from align_exporter.int8.accuracy import Target
from align_exporter.int8.calibration import Calibration
from align_exporter.int8.fusion import check_fused
from align_exporter.int8.quantizing import Quantizing, int8_operators, quantize_for_cpu, quantize_for_gpu
from align_exporter.int8.target import Goal
from align_exporter.observed import ObservedSamples
from align_exporter.options import ExportOptions
from align_exporter.passes import run_steps
from align_exporter.passes.pipeline import CLEAN_UP
from align_exporter.plans import Plan
from align_exporter.tensorrt_rules import check_tensorrt
from align_exporter.trace import trace
from align_runtime.console import Progress
from align_runtime.errors import ParityError
from align_runtime.golden import Golden
from align_runtime.graph_entry import (
    ANY_SPEED,
    ANY_TARGET,
    CPU_TARGET,
    FASTER,
    GPU_TARGET,
    NOT_MEASURED,
    SAMPLE_WORDS,
    Graph,
    Quantization,
)


@dataclass(frozen=True)
class BuiltGraph:
    """A graph in the bundle, its answers to the samples, and for an FP16 or INT8 graph how it came about."""

    graph: Graph
    measurement: gate.Measurement
    halving: Halving | None = None
    quantizing: Quantizing | None = None


@dataclass(frozen=True)
class GraphBuilder:
    """Builds the graphs of one bundle in `folder`.

    Attributes:
        answers: the samples and what the reference makes of them.
        observed: what activation ranges and means of channels are measured on.
    """

    checkpoint: Checkpoint
    answers: Golden
    observed: ObservedSamples
    folder: Path
    options: ExportOptions
    progress: Progress

    def build(self, plan: Plan) -> Iterator[BuiltGraph]:
        """The FP32 graph of `plan`; where they are asked for, its twins in FP16 and in INT8 for GPUs, if it is the one
        for every device, and in INT8 for CPUs, if it is what runs on a CPU.

        Raises:
            BuildError, ParityError: a check or the gate failed.
        """
        config = self.checkpoint.model.config
        with self.progress.phase(f"{plan.title}: trace"):
            traced = trace(plan.tower, plan.contract, config.text.max_position_embeddings, self.options.opset)
        with self.progress.phase(f"{plan.title}: passes and checks"):
            run_steps(traced, plan.steps)
            check_operators(traced, plan.contract, config, plan.target)
            if plan.weights is not None:
                plan.weights.move(traced)
            data = None if plan.weights is None else plan.weights.path.relative_to(self.folder).as_posix()
            self._write(traced, plan.contract, plan.file, data)
            if plan.target == ANY_TARGET:
                check_tensorrt(self.folder / plan.file)
        graph, measurement = self._prove(plan, "fp32", plan.file, data)
        yield BuiltGraph(graph, measurement)
        reduced = plan.target == ANY_TARGET and (self.options.fp16 or self.options.int8_for_gpu)
        ranges = self._ranges(plan, traced) if reduced else ()
        if self.options.fp16 and plan.target == ANY_TARGET:
            yield self._build_fp16(plan, traced, ranges)
        if self.options.int8_for_cpu and plan.runs_on_cpu:
            yield self._build_int8_for_cpu(plan)
        if self.options.int8_for_gpu and plan.target == ANY_TARGET:
            yield self._build_int8_for_gpu(plan, ranges)

    def _ranges(self, plan: Plan, model: ir.Model) -> tuple[TensorRange, ...]:
        batches, count = self.observed.for_ranges(plan.contract)
        bar = self.progress.bar(f"{plan.title}: activation ranges", batches, count)
        return measure_ranges(model, bar, (self.folder / plan.file).parent)

    def _build_fp16(self, plan: Plan, model: ir.Model, ranges: tuple[TensorRange, ...]) -> BuiltGraph:
        """`model`, the FP32 graph, is converted in place."""
        file, title = f"onnx/{plan.contract.tower}_model_fp16.onnx", f"{plan.title} fp16"
        with self.progress.phase(f"{title}: conversion and checks"):
            pictures = self.observed.for_means(plan.contract)
            halving = halve(model, ranges, pictures, self.options, (self.folder / file).parent)
            ir.external_data.load_to_model(model)  # weights that stay FP32: the graph holds its own
            run_steps(model, CLEAN_UP)
            self._write(model, plan.contract, file, None)
            check_tensorrt(self.folder / file)
        graph, measurement = self._prove(plan, "fp16", file, None)
        return BuiltGraph(replace(graph, islands=halving.islands), measurement, halving)

    def _build_int8_for_cpu(self, plan: Plan) -> BuiltGraph:
        """Made of the FP32 graph in the bundle, for ONNX Runtime's CPU kernels."""
        tower = plan.contract.tower
        file, title = f"onnx/{tower}_model_int8_cpu.onnx", f"{tower} for cpu int8"
        model = self._read(plan)
        with self.progress.phase(f"{title}: calibration"):
            calibration = self._calibration(self.observed.for_scales(plan.contract))
            quantizing = quantize_for_cpu(model, tower, calibration, self._goal(plan))
            operators = int8_operators(self._read(plan), tower, quantizing.kept)
        with self.progress.phase(f"{title}: checks"):
            run_steps(model, CLEAN_UP)
            self._write(model, plan.contract, file, None)
            check_fused(self.folder / file, operators)
        graph, measurement = self._prove_int8(plan, CPU_TARGET, file, quantizing)
        with self.progress.phase(f"{title}: speed"):
            quantizing = replace(quantizing, races=self._races(plan, file))
        if not self.options.keep_slower:
            check_faster(file, quantizing.races)
        speed = ANY_SPEED if self.options.keep_slower else FASTER
        record = Quantization(quantizing.scheme, quantizing.samples, speed, quantizing.kept)
        return BuiltGraph(replace(graph, quantization=record), measurement, quantizing=quantizing)

    def _build_int8_for_gpu(self, plan: Plan, ranges: tuple[TensorRange, ...]) -> BuiltGraph:
        """Made of the FP32 graph in the bundle, for TensorRT. No GPU takes part: how fast it is, is not known here."""
        tower = plan.contract.tower
        file, title = f"onnx/{tower}_model_int8.onnx", f"{tower} for gpu int8"
        model = self._read(plan)
        with self.progress.phase(f"{title}: calibration"):
            calibration = self._calibration(self.observed.for_scales(plan.contract))
            quantizing, halving = quantize_for_gpu(model, calibration, self._goal(plan), ranges, self.options)
        with self.progress.phase(f"{title}: checks"):
            run_steps(model, CLEAN_UP)
            self._write(model, plan.contract, file, None)
            check_tensorrt(self.folder / file)
        graph, measurement = self._prove_int8(plan, GPU_TARGET, file, quantizing)
        record = Quantization(quantizing.scheme, quantizing.samples, NOT_MEASURED, quantizing.kept)
        graph = replace(graph, islands=halving.islands, quantization=record)
        return BuiltGraph(graph, measurement, halving, quantizing)

    def _calibration(self, samples: Sequence[Batch]) -> Calibration:
        place = self.options.calibration_cache
        cache = None if place is None else StatisticsCache(place, self.progress.warn)
        return Calibration(samples, self.folder / "onnx", cache, self.progress)

    def _goal(self, plan: Plan) -> Goal | None:
        """What is asked of INT8 beyond the gate; None where nothing is."""
        if not self.options.has_target:
            return None
        return Goal(
            target=Target(self.options.target_cosine, self.options.target_agreement),
            held_out=self._calibration(self.observed.held_out(plan.contract)),
            others=self.observed.other_embeddings(plan.contract.tower),
            tokens=self.checkpoint.facts.max_length,
        )

    def _read(self, plan: Plan) -> ir.Model:
        """The FP32 graph in the bundle, with its weights in memory."""
        model = ir.load(self.folder / plan.file)
        ir.external_data.load_to_model(model)
        return model

    def _prove_int8(self, plan: Plan, target: str, file: str, quantizing: Quantizing) -> tuple[Graph, gate.Measurement]:
        """The gate, which says how INT8 could come closer."""
        samples = SAMPLE_WORDS[plan.contract.tower]
        try:
            return self._prove(replace(plan, target=target), INT8, file, None)
        except ParityError as error:
            raise error.advised(
                f"that is how far the best of {len(quantizing.trials)} ways of calibrating on {quantizing.samples} "
                f"{samples} gets. Calibrate on more {samples} of the kind that the service sees (--{samples}), ask "
                "for less (--min-cosine), or leave it out (--int8-target)"
                if quantizing.trials
                else "INT8 gets no further on this tower. Ask for less (--min-cosine) or leave --int8 out"
            ) from None

    def _races(self, plan: Plan, int8: str) -> tuple[Race, ...]:
        """Against the float graphs that the runtime would take in its place."""
        tower = plan.contract.tower
        rivals = {"fp32": plan.file} | ({"fp16": f"onnx/{tower}_model_fp16.onnx"} if self.options.fp16 else {})
        files = {name: self.folder / file for name, file in (rivals | {INT8: int8}).items()}
        if tower == "text":
            return race(files, text_cases(self.answers))
        return race(files, picture_cases(self.observed.samples_at_once(plan.contract)))

    def _write(self, model: ir.Model, contract: GraphContract, name: str, data: str | None) -> None:
        write_graph(model, contract, self.folder / name)
        check_file(self.folder / name, contract, self.options.opset, None if data is None else Path(data).name)

    def _prove(self, plan: Plan, variant: str, file: str, data: str | None) -> tuple[Graph, gate.Measurement]:
        """The gate: the graph as it is run here and, where FP16 is in it, as hardware rounds."""
        limits = gate.limits(variant, plan.contract.tower, plan.target, self.options)
        files = [self.folder / file]
        title = plan.title if variant == "fp32" else f"{plan.title} {variant}"
        with self.progress.phase(f"{title}: parity with the reference"):
            if variant == "fp16" or (variant, plan.target) == (INT8, GPU_TARGET):
                files.append(files[0].with_name(".rounded.onnx"))
                ir.save(rounded(ir.load(files[0])), files[1])
            measurement = gate.measure(files, plan.contract, self.checkpoint.preprocessing, self.answers)
            for extra in files[1:]:
                extra.unlink()
            measurement.parity.check(file, limits)
        graph = Graph(
            tower=plan.contract.tower,
            variant=variant,
            precision=variant,
            target=plan.target,
            file=file,
            data=data,
            opset=self.options.opset,
            inputs=plan.contract.inputs,
            outputs=(plan.contract.output,),
            parity=measurement.parity,
            limits=limits,
            content=proven_content(self.folder, file, variant, self.checkpoint.facts.max_length),
        )
        return graph, measurement


def write_graph(model: ir.Model, contract: GraphContract, file: Path) -> None:
    """Writes `model`: the same model gives the same bytes."""
    model.graph.name = f"align_{contract.tower}"
    model.producer_name, model.producer_version = "align-onnx", version("align-onnx")
    file.parent.mkdir(parents=True, exist_ok=True)
    ir.save(model, file)
