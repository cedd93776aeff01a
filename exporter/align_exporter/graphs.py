"""From a plan to proven ONNX files: trace, passes, checks, the parity gate; then the same graph in FP16 and INT8."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import onnx_ir as ir

from align_calibration.cache import StatisticsCache
from align_calibration.ranges import measure_ranges
from align_exporter import gate
from align_exporter.checkpoint import Checkpoint
from align_exporter.content import proven_content
from align_exporter.contract import GraphContract
from align_exporter.fp16.halve import Halving, halve
from align_exporter.fp16.rounding import rounded
from align_exporter.graph_check import check_file, check_operators
from align_exporter.int8.acceptance import INT8, Race, check_faster, picture_cases, race, text_cases
from align_exporter.int8.fusion import check_fused
from align_exporter.int8.quantizing import Quantizing, quantize
from align_exporter.observed import ObservedSamples
from align_exporter.options import ExportOptions
from align_exporter.passes import run_steps
from align_exporter.passes.pipeline import CLEAN_UP
from align_exporter.plans import Plan
from align_exporter.trace import trace
from align_runtime.console import Progress
from align_runtime.errors import ParityError
from align_runtime.golden import Golden
from align_runtime.graph_entry import ANY_SPEED, ANY_TARGET, FASTER, Graph, Quantization


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
        """The FP32 graph of `plan`; where they are asked for, its FP16 twin, if one graph serves every device, and its
        INT8 twin, if it is what runs on a CPU.

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
        graph, measurement = self._prove(plan, "fp32", plan.file, data)
        yield BuiltGraph(graph, measurement)
        if self.options.fp16 and plan.target == ANY_TARGET:
            yield self._build_fp16(plan, traced)
        if self.options.int8 and plan.runs_on_cpu:
            yield self._build_int8(plan)

    def _build_fp16(self, plan: Plan, model: ir.Model) -> BuiltGraph:
        """`model`, the FP32 graph, is converted in place."""
        file, title = f"onnx/{plan.contract.tower}_model_fp16.onnx", f"{plan.title} fp16"
        batches, count = self.observed.for_ranges(plan.contract)
        bar = self.progress.bar(f"{title}: activation ranges", batches, count)
        ranges = measure_ranges(model, bar, (self.folder / file).parent)
        with self.progress.phase(f"{title}: conversion and checks"):
            pictures = self.observed.for_means(plan.contract)
            halving = halve(model, ranges, pictures, self.options, (self.folder / file).parent)
            ir.external_data.load_to_model(model)  # weights that stay FP32: the graph holds its own
            run_steps(model, CLEAN_UP)
            self._write(model, plan.contract, file, None)
        graph, measurement = self._prove(plan, "fp16", file, None)
        return BuiltGraph(replace(graph, islands=halving.islands), measurement, halving)

    def _build_int8(self, plan: Plan) -> BuiltGraph:
        """Made of the FP32 graph in the bundle, for ONNX Runtime's CPU kernels."""
        tower = plan.contract.tower
        file, title = f"onnx/{tower}_model_int8_cpu.onnx", f"{tower} int8"
        model = ir.load(self.folder / plan.file)
        ir.external_data.load_to_model(model)
        with self.progress.phase(f"{title}: calibration"):
            pictures = self.observed.for_scales(plan.contract)
            place = self.options.calibration_cache
            cache = None if place is None else StatisticsCache(place, self.progress.warn)
            quantizing = quantize(model, pictures, (self.folder / file).parent, cache, self.progress)
        with self.progress.phase(f"{title}: checks"):
            run_steps(model, CLEAN_UP)
            self._write(model, plan.contract, file, None)
            check_fused(self.folder / file, quantizing.operators)
        try:
            graph, measurement = self._prove(plan, INT8, file, None)
        except ParityError as error:
            raise error.advised(
                f"that is how far the best of {len(quantizing.trials)} ways of calibrating on {quantizing.samples} "
                "pictures gets. Calibrate on more pictures of the kind that the service sees (--pictures), ask "
                "for less (--target-cosine), or leave --int8 out"
                if quantizing.trials
                else "INT8 gets no further on this tower. Ask for less (--target-cosine) or leave --int8 out"
            ) from None
        with self.progress.phase(f"{title}: speed"):
            quantizing = replace(quantizing, races=self._races(plan, file))
        if not self.options.keep_slower:
            check_faster(file, quantizing.races)
        speed = ANY_SPEED if self.options.keep_slower else FASTER
        record = Quantization(quantizing.scheme, quantizing.samples, speed)
        return BuiltGraph(replace(graph, target="cpu", quantization=record), measurement, quantizing=quantizing)

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
        """The gate: the graph as it is run here and, for FP16, as hardware rounds."""
        limits = gate.limits(variant, plan.contract.tower, self.options)
        files = [self.folder / file]
        title = plan.title if variant == "fp32" else f"{plan.title} {variant}"
        with self.progress.phase(f"{title}: parity with the reference"):
            if variant == "fp16":
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
