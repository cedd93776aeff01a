"""The first page: the verdict, the variants, and how large and how precise their graphs are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from align_bench.page.components import code, facts, section, table, title_of, verdict_of
from align_bench.page.markup import Markup, element
from align_exporter.report import figures
from align_exporter.report.charts import bar, stacked_bar
from align_exporter.report.record import BuildRecord, GraphRecord
from align_runtime.graph_entry import ANY_TARGET
from align_runtime.parity import Parity


def verdict(record: BuildRecord) -> Markup:
    """Whether every graph is within its limits, computed from the measurements; then each variant in short."""
    graphs = record.graphs
    return section(
        "verdict", "Verdict", _judgement(graphs), _cards(graphs), _parity_table(graphs) if graphs else Markup()
    )


def _judgement(graphs: Sequence[GraphRecord]) -> Markup:
    failures = [element("p", graph.failure) for graph in graphs if graph.failure]
    if failures or not graphs:
        head = f"✗ {len(failures)} of {len(graphs)} graphs failed" if graphs else "✗ No graph was built"
        return element("div", element("strong", head), *failures, class_="verdict failed")
    text = (
        "Every graph was compared with the PyTorch reference on the bundle's own samples, in several batch sizes, and "
        f"is within its limits: {sum(graph.graph.parity.rows for graph in graphs)} embeddings in total."
    )
    head = "✓ The one graph passed" if len(graphs) == 1 else f"✓ All {len(graphs)} graphs passed"
    return element("div", element("strong", head), element("p", text), class_="verdict")


def _cards(graphs: Sequence[GraphRecord]) -> Markup:
    variants: dict[str, list[GraphRecord]] = {}
    for record in graphs:
        variants.setdefault(record.graph.variant, []).append(record)
    return element("div", *(_card(name, members) for name, members in variants.items()), class_="cards")


def _card(variant: str, members: Sequence[GraphRecord]) -> Markup:
    parities = [record.graph.parity for record in members]
    worst = max(parities, key=lambda parity: math.inf if math.isnan(parity.max_abs) else parity.max_abs)
    macs = sum((Counter(record.graph.content.macs) for record in members), Counter[str]())
    pairs = [
        ("Worst cosine", figures.cosine(float(np.min([parity.min_cosine for parity in parities])))),
        ("Largest difference", f"{figures.scientific(worst.max_abs)} ({worst.worst})"),
        ("Computes in", figures.shares(macs)),
    ]
    if any(record.graph.variant != "fp32" for record in members):
        pairs.append(("FP32 islands", str(sum(len(record.graph.islands) for record in members))))
    pairs += [(title_of(record.graph), figures.size(record.bytes)) for record in members]
    return element("div", element("h3", variant), facts(pairs), class_="card")


def _parity_table(graphs: Sequence[GraphRecord]) -> Markup:
    rows = [
        (
            element("a", title_of(record.graph), href=f"#graph-{index}"),
            verdict_of(record.failure),
            figures.scientific(record.graph.parity.max_abs),
            figures.scientific(record.graph.limits.max_abs),
            figures.cosine(record.graph.parity.min_cosine),
            f"{record.graph.limits.min_cosine:g}",
            _centred(record.graph.parity),
            f"{record.graph.limits.min_centred_cosine:g}",
        )
        for index, record in enumerate(graphs)
    ]
    headings = ["Graph", "Gate", "Max abs", "Allowed", "Min cosine", "At least", "Mean-centred", "At least"]
    caption = "Distance of every graph from the reference; mean-centred: the cosine without what all embeddings share"
    return table(caption, headings, rows, numbers=(2, 3, 4, 5, 6, 7))


def _centred(parity: Parity) -> str:
    """NaN stands for too few rows to tell."""
    return figures.UNKNOWN if math.isnan(parity.min_centred_cosine) else figures.cosine(parity.min_centred_cosine)


def sizes_and_precision(record: BuildRecord) -> Markup:
    """Bytes, and the shares of multiply-accumulates and weights in each element type."""
    if not record.graphs:
        return Markup()
    return section("precision", "Size and precision", _size_table(record.graphs), *_share_tables(record.graphs))


def _size_table(graphs: Sequence[GraphRecord]) -> Markup:
    largest = max(record.bytes for record in graphs)
    rows = [
        (
            title_of(record.graph),
            bar(record.bytes, largest, f"{record.bytes} bytes"),
            figures.size(record.bytes),
            _of_fp32(record, graphs),
        )
        for record in graphs
    ]
    shared = [name for name, uses in Counter(record.graph.data for record in graphs).items() if name and uses > 1]
    note = [
        element("p", code(name), " belongs to several graphs and is counted with each of them.", class_="muted")
        for name in shared
    ]
    caption = "Sizes of the graphs, external weights included"
    return element("div", table(caption, ["Graph", "Relative", "Size", "Of fp32"], rows, numbers=(2, 3)), *note)


def _of_fp32(record: GraphRecord, graphs: Sequence[GraphRecord]) -> str:
    """The size in relation to that of the FP32 graph for the same target, or else for every target."""
    for target in (record.graph.target, ANY_TARGET):
        for other in graphs:
            same = (other.graph.tower, other.graph.target) == (record.graph.tower, target)
            if same and other.graph.variant == "fp32" and record.graph.variant != "fp32" and other.bytes:
                return f"{record.bytes / other.bytes:.3f} ×"
    return figures.UNKNOWN


def _share_tables(graphs: Sequence[GraphRecord]) -> list[Markup]:
    of_macs = "Multiply-accumulates of one item by the element type they are computed in; float32 is hatched"
    of_weights = "Weights by element type; float32 is hatched"
    return [
        _share_table(of_macs, [(record, record.graph.content.macs) for record in graphs]),
        _share_table(of_weights, [(record, record.graph.content.weights) for record in graphs]),
    ]


def _share_table(caption: str, parts: Sequence[tuple[GraphRecord, Mapping[str, int]]]) -> Markup:
    rows = [
        (title_of(record.graph), stacked_bar(counts), figures.shares(counts), figures.amount(sum(counts.values())))
        for record, counts in parts
    ]
    return table(caption, ["Graph", "Split", "Shares", "In all"], rows, numbers=(3,))
