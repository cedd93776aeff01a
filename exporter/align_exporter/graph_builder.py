"""From a plan to proven ONNX files: trace, passes, checks, the parity gate; then the same graph in FP16 and INT8."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import onnx_ir as ir

from align_calibration.ranges import TensorRange, measure_ranges
from align_exporter.calibration_inputs import CalibrationInputs
from align_exporter.fp16.build import halve
from align_exporter.graph.checks import check_operators
from align_exporter.graph.files import BuiltGraph, GraphFiles
from align_exporter.graph.passes.order import CLEAN_UP, run_steps
from align_exporter.graph.specs import GraphSpec
from align_exporter.graph.trace import trace
from align_exporter.int8.build import Int8Builder
from align_exporter.trt_lint import check_tensorrt
from align_runtime.graph_entry import ANY_TARGET


@dataclass(frozen=True)
class GraphBuilder:
    """Builds the graphs of one bundle into `files`; `observed` is what they are measured on."""

    files: GraphFiles
    observed: CalibrationInputs

    def build(self, plan: GraphSpec) -> Iterator[BuiltGraph]:
        """The FP32 graph of `plan`; where they are asked for, its twins in FP16 and in INT8 for GPUs, if it is the one
        for every device, and in INT8 for CPUs, if it is what runs on a CPU.

        Raises:
            BuildError, ParityError: a check or the gate failed.
        """
        config = self.files.checkpoint.model.config
        with self.files.progress.phase(f"{plan.title}: trace"):
            traced = trace(plan.tower, plan.contract, config.text.max_position_embeddings, self.files.options.opset)
        with self.files.progress.phase(f"{plan.title}: passes and checks"):
            run_steps(traced, plan.steps)
            check_operators(traced, plan.contract, config, plan.target)
            if plan.weights is not None:
                plan.weights.move(traced)
            data = None if plan.weights is None else plan.weights.path.relative_to(self.files.folder).as_posix()
            self.files.write(traced, plan.contract, plan.file, data)
            if plan.target == ANY_TARGET:
                check_tensorrt(self.files.folder / plan.file)
        graph, measurement = self.files.prove(plan, "fp32", plan.file, data)
        yield BuiltGraph(graph, measurement)
        reduced = plan.target == ANY_TARGET and (self.files.options.fp16 or self.files.options.int8_for_gpu)
        ranges = self._ranges(plan, traced) if reduced else ()
        if self.files.options.fp16 and plan.target == ANY_TARGET:
            yield self._build_fp16(plan, traced, ranges)
        int8 = Int8Builder(self.files, self.observed)
        if self.files.options.int8_for_cpu and plan.runs_on_cpu:
            yield int8.for_cpu(plan)
        if self.files.options.int8_for_gpu and plan.target == ANY_TARGET:
            yield int8.for_gpu(plan, ranges)

    def _ranges(self, plan: GraphSpec, model: ir.Model) -> tuple[TensorRange, ...]:
        batches, count = self.observed.for_ranges(plan.contract)
        bar = self.files.progress.bar(f"{plan.title}: activation ranges", batches, count)
        return measure_ranges(model, bar, (self.files.folder / plan.file).parent)

    def _build_fp16(self, plan: GraphSpec, model: ir.Model, ranges: tuple[TensorRange, ...]) -> BuiltGraph:
        """`model`, the FP32 graph, is converted in place."""
        file, title = f"onnx/{plan.contract.tower}_model_fp16.onnx", f"{plan.title} fp16"
        with self.files.progress.phase(f"{title}: conversion and checks"):
            images = self.observed.for_means(plan.contract)
            halving = halve(model, ranges, images, self.files.options, (self.files.folder / file).parent)
            ir.external_data.load_to_model(model)  # weights that stay FP32: the graph holds its own
            run_steps(model, CLEAN_UP)
            self.files.write(model, plan.contract, file, None)
            check_tensorrt(self.files.folder / file)
        graph, measurement = self.files.prove(plan, "fp16", file, None)
        return BuiltGraph(replace(graph, islands=halving.islands), measurement, halving)
