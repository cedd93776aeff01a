"""One part of the page per graph: its files and tensors, its distances from the reference, its FP32 islands."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from align_bench.page.components import code, facts, figure, more, section, table, title_of, verdict_of
from align_bench.page.markup import Markup, element
from align_exporter.report import figures
from align_exporter.report.charts import error_histogram
from align_exporter.report.quantization_section import quantization
from align_exporter.report.record import BuildRecord, GraphRecord
from align_runtime.graph_entry import Island, TensorSpec

WORST_SAMPLES = 5
SHOWN_NAMES = 3  # of an island's operators and reasons; the others are folded away


def graph_sections(record: BuildRecord) -> Markup:
    """All graphs, in the order of the manifest."""
    parts = [_graph(index, graph) for index, graph in enumerate(record.graphs)]
    return section("graphs", "Graphs", *parts) if parts else Markup()


def _graph(index: int, record: GraphRecord) -> Markup:
    graph, name = record.graph, f"graph-{index}"
    heading = element("h3", title_of(graph), " ", verdict_of(record.failure), id=name)
    description = facts(
        [
            ("File", code(graph.file)),
            ("Weights", "in the graph itself" if graph.data is None else code(graph.data)),
            ("Size", figures.size(record.bytes)),
            ("Takes", "; ".join(map(_tensor, graph.inputs))),
            ("Gives", "; ".join(map(_tensor, graph.outputs))),
            ("Made for", "every device" if graph.target == "any" else graph.target),
            ("Precision", f"{graph.variant}; {figures.shares(graph.content.macs)} of the multiply-accumulates"),
            ("Casts", f"{record.casts} between float types"),
            ("ONNX opset", str(graph.opset)),
        ]
    )
    details = [*_parity(record), *_islands(record), *quantization(record)]
    return element("section", heading, description, *details, aria_labelledby=name)


def _tensor(spec: TensorSpec) -> str:
    return f"{spec.name}: {spec.dtype} [{', '.join(map(str, spec.shape))}]"


def _parity(record: GraphRecord) -> list[Markup]:
    parity, limits = record.graph.parity, record.graph.limits
    drawing = error_histogram(record.errors, parity.max_abs, limits.max_abs)
    caption = (
        f"How many components of {len(record.cosines)} compared embeddings are how far from the reference. The "
        f"largest difference is in the embedding of {parity.worst}."
    )
    return [element("h4", "Distance from the reference"), figure(drawing, caption), _worst_samples(record)]


def _worst_samples(record: GraphRecord) -> Markup:
    """A sample that was compared several times counts with its worst."""
    lowest: dict[str, float] = {}
    for label, cosine in zip(record.labels, record.cosines, strict=True):
        lowest[label] = float(np.minimum(lowest.get(label, np.inf), cosine))  # a NaN stays
    order = sorted(lowest.items(), key=lambda pair: (not math.isnan(pair[1]), pair[1]))[:WORST_SAMPLES]
    rows = [(label, figures.cosine(cosine), figures.scientific(1 - cosine)) for label, cosine in order]
    caption = f"The lowest cosines of {len(lowest)} samples"
    return table(caption, ["Sample", "Cosine", "1 − cosine"], rows, numbers=(1, 2))


def _islands(record: GraphRecord) -> list[Markup]:
    if not record.graph.islands:
        return []
    rows = [
        (str(number), _reasons(island), str(len(island.nodes)), _names(island))
        for number, island in enumerate(record.graph.islands, 1)
    ]
    caption = "Operators side by side that were kept in FP32, and why"
    return [
        element("h4", "FP32 islands"),
        table(caption, ["Island", "Why", "Operators", "Which"], rows, numbers=(2,)),
    ]


def _names(island: Island) -> Markup:
    return _folded([code(node) for node in island.nodes])


def _reasons(island: Island) -> Markup:
    return _folded([element("span", reason) for reason in island.reasons])


def _folded(items: Sequence[Markup]) -> Markup:
    return more(items[:SHOWN_NAMES], items[SHOWN_NAMES:])
