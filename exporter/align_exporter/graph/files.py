"""The files of graphs: written and checked, read again, and proven against the reference."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import onnx_ir as ir

from align_exporter import parity_gate as gate
from align_exporter.checkpoint.loading import Checkpoint
from align_exporter.export_options import ExportOptions
from align_exporter.fp16.build import Fp16Result
from align_exporter.fp16.emulate import rounded
from align_exporter.graph.checks import check_file
from align_exporter.graph.content import checked_content
from align_exporter.graph.contract import GraphContract
from align_exporter.graph.specs import GraphSpec
from align_exporter.int8.quantize import Int8Result
from align_exporter.int8.speed import INT8
from align_runtime.console import Progress
from align_runtime.golden import Golden
from align_runtime.graph_entry import GPU_TARGET, Graph


@dataclass(frozen=True)
class BuiltGraph:
    """A graph in the bundle, its answers to the samples, and for an FP16 or INT8 graph how it came about."""

    graph: Graph
    measurement: gate.Measurement
    halving: Fp16Result | None = None
    quantizing: Int8Result | None = None


@dataclass(frozen=True)
class GraphFiles:
    """The graphs of one bundle in `folder`.

    Attributes:
        answers: the samples and what the reference makes of them.
    """

    checkpoint: Checkpoint
    answers: Golden
    folder: Path
    options: ExportOptions
    progress: Progress

    def read(self, plan: GraphSpec) -> ir.Model:
        """The FP32 graph in the bundle, with its weights in memory."""
        model = ir.load(self.folder / plan.file)
        ir.external_data.load_to_model(model)
        return model

    def write(self, model: ir.Model, contract: GraphContract, name: str, data: str | None) -> None:
        """Writes `model` to the file `name`, its weights in `data` or in itself, and checks what is there."""
        write_graph(model, contract, self.folder / name)
        check_file(self.folder / name, contract, self.options.opset, None if data is None else Path(data).name)

    def prove(self, plan: GraphSpec, variant: str, file: str, data: str | None) -> tuple[Graph, gate.Measurement]:
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
            target=plan.target,
            file=file,
            data=data,
            opset=self.options.opset,
            inputs=plan.contract.inputs,
            outputs=(plan.contract.output,),
            parity=measurement.parity,
            limits=limits,
            content=checked_content(self.folder, file, variant, self.checkpoint.facts.max_length),
        )
        return graph, measurement


def write_graph(model: ir.Model, contract: GraphContract, file: Path) -> None:
    """Writes `model`: the same model gives the same bytes."""
    model.graph.name = f"align_{contract.tower}"
    model.producer_name, model.producer_version = "align-onnx", version("align-onnx")
    file.parent.mkdir(parents=True, exist_ok=True)
    ir.save(model, file)
