"""How an INT8 graph came about: its scales, what stays float to meet a target, and how fast it was."""

from __future__ import annotations

from statistics import median

from align_bench.page.components import code, figure, more, table
from align_bench.page.markup import Markup, element
from align_exporter.int8.speed import INT8
from align_exporter.report import figures
from align_exporter.report.record import GraphRecord
from align_exporter.report.target_chart import target_curve
from align_runtime.graph_entry import SAMPLE_WORDS, Quantization

SHOWN_PARTS = 3  # the others are folded away
CAPTION = "Every dot is a graph that was tried; the filled one was taken."


def quantization(record: GraphRecord) -> list[Markup]:
    """Of an INT8 graph; nothing for any other."""
    found = record.graph.quantization
    if found is None:
        return []
    heading = element("h4", "Quantisation")
    return [heading, _trials(record, found), *_kept(found), *_target(record), _speed(record, found)]


def _trials(record: GraphRecord, found: Quantization) -> Markup:
    if not record.trials:
        return element("p", "Scales of activations follow from each input; nothing was calibrated.")
    rows = [(trial.scheme, figures.scientific(trial.error)) for trial in record.trials]
    caption = (
        f"Ways of calibrating on {found.samples} {SAMPLE_WORDS[record.graph.tower]}, by the mean square of the "
        "distance between its embeddings and the float graph's, the worst fiftieth left out; the first was taken"
    )
    return table(caption, ["Observer", "Error"], rows, numbers=(1,))


def _kept(found: Quantization) -> list[Markup]:
    if not found.kept:
        return []
    parts = [code(part) for part in found.kept]
    counted = f"{len(parts)} {'part stays' if len(parts) == 1 else 'parts stay'} float:"
    return [element("p", counted), more(parts[:SHOWN_PARTS], parts[SHOWN_PARTS:])]


def _target(record: GraphRecord) -> list[Markup]:
    """What was tried, as a table and as curves."""
    points, target = record.points, record.target
    if not points:
        return []
    rows = [
        (
            str(len(point.kept)),
            figures.share(point.share, 1.0),
            figures.cosine(point.fidelity.cosine),
            figures.share(point.fidelity.agreement, 1.0),
        )
        for point in points
    ]
    caption = f"Graphs that were tried for the target, {target}, on held-out samples; the first was taken"
    headings = ["Parts in float", "MACs in INT8", "Cosine", "Same decisions"]
    curves = [
        (name, [getattr(point.fidelity, name) for point in points], getattr(target, name))
        for name in ("cosine", "agreement")
    ]
    return [
        table(caption, headings, rows, numbers=(1, 2, 3)),
        *(figure(target_curve(points, values, name, asked), CAPTION) for name, values, asked in curves),
    ]


def _speed(record: GraphRecord, found: Quantization) -> Markup:
    if found.speedup is None:
        told = f"Speed not measured: made for {record.graph.target}, which did not take part in the build."
        return element("p", told)
    rows = [
        (
            race.case,
            race.baseline,
            *(figures.milliseconds(median(race.seconds[name])) for name in (race.baseline, INT8)),
            f"{race.speedup:.2f} ×",
        )
        for race in record.races
    ]
    caption = "Against the fastest float graph on this machine, in turns, medians"
    headings = ["Input", "Float graph", "Its time", "INT8", "Times as fast"]
    return table(caption, headings, rows, numbers=(2, 3, 4))
