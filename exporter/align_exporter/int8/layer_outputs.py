"""Scales by what the layers behind a tensor make of it: the range with the smallest error of their output.

An observer sees the values of a tensor and not what they are for. In an EfficientNet a single channel may be ten times
as large as the others and hardly be read, and a range that clips it to a fifth leaves five times as many integers for
the rest. So the error is measured two convolutions further: in a block, behind the expansion at the end of the block
(docs/int8.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from align_calibration.histograms import Histogram
from align_calibration.output_errors import measure_output_errors
from align_calibration.quant_params import QuantParams, QuantSpec
from align_exporter.graph.ir_helpers import name_of
from align_exporter.int8.calibration_samples import Calibration
from align_exporter.int8.visible_ranges import POINTWISE

LAYERS = 2
SAMPLES = 128  # at most; fewer gave larger errors in some draws (docs/int8.md)
WINDOWS = 32  # of each tensor, at least: of fewer samples several are taken
HIGHS = tuple(2.0 ** (-step / 3) for step in range(12))  # fractions of the upper end of a range that are tried, to 8 %
LOWS = tuple(2.0 ** (-step / 2) for step in range(6))  # of the lower end, to 18 %
SEARCHED = 1 / 32  # of the other end; a lower end that is nearer to 0 is left as it is


def layers_behind(value: ir.Value, graph: ir.Graph) -> tuple[ir.Node, ...]:
    """The operators from `value` to the second convolution behind it, or the first where there is something else
    between; none where there is no such way from `value` alone.

    Besides convolutions these are functions of single values, and products with gates, one for each channel, which are
    taken as they are without rounding.
    """
    inside, found, convolutions = {value}, list[ir.Node](), 0
    for node in graph:
        if any(part in inside for part in node.inputs) and _is_followed(node, inside):
            found.append(node)
            inside.add(node.outputs[0])
            convolutions += node.op_type == "Conv"
            if convolutions == LAYERS:
                break
    while found and found[-1].op_type != "Conv":
        found.pop()
    return _needed(found)


def _is_followed(node: ir.Node, inside: set[ir.Value]) -> bool:
    others = [part for part in node.inputs if part is not None and part not in inside]
    if node.op_type == "Conv":
        return all(part.const_value is not None for part in others)
    return node.op_type in POINTWISE and all(part.const_value is not None or _is_gate(part) for part in others)


def _is_gate(value: ir.Value) -> bool:
    return value.shape is not None and len(value.shape) == 4 and list(value.shape)[2:] == [1, 1]


def _needed(nodes: Sequence[ir.Node]) -> tuple[ir.Node, ...]:
    """Those of `nodes` that the output of the last one is computed of."""
    found, wanted = list[ir.Node](), set[ir.Value | None](nodes[-1].outputs if nodes else ())
    for node in reversed(nodes):
        if node.outputs[0] in wanted:
            found.append(node)
            wanted.update(node.inputs)
    return tuple(reversed(found))


def scales_by_outputs(
    model: ir.Model,
    start: Mapping[str, QuantParams],
    spec: QuantSpec,
    histograms: Mapping[str, Histogram],
    calibration: Calibration,
) -> Mapping[str, QuantParams]:
    """The best scales of those tensors of `start` that have `layers_behind` them.

    First the upper end is searched with the lower end of `start`, then the lower end. Both ends are one where zero
    points have to be 0.

    Args:
        model: float32; left as it is.
    """
    results = {name_of(value): value for node in model.graph for value in node.outputs}
    behind = {name: layers_behind(results[name], model.graph) for name in start if name in results}
    search = _Search(
        model, {name: nodes for name, nodes in behind.items() if nodes}, spec, calibration.at_most(SAMPLES)
    )
    ranges = {name: histograms[name] for name in search.readers}
    if spec.symmetric:
        both = {name: [spec.fit(part * r.lowest, part * r.highest) for part in HIGHS] for name, r in ranges.items()}
        return search.best(both, "calibration: layer outputs")
    upper = {
        name: [spec.fit(spec.ends(start[name])[0], part * r.highest) for part in HIGHS] for name, r in ranges.items()
    }
    found = search.best(upper, "calibration: layer outputs, upper ends")
    lower = {
        name: [found[name], *(spec.fit(part * r.lowest, spec.ends(found[name])[1]) for part in LOWS)]
        for name, r in ranges.items()
        if -r.lowest > SEARCHED * r.highest
    }
    return found | search.best(lower, "calibration: layer outputs, lower ends")


@dataclass(frozen=True)
class _Search:
    """Tensors of `model` with what reads them, and the samples that errors are measured on."""

    model: ir.Model
    readers: Mapping[str, Sequence[ir.Node]]
    spec: QuantSpec
    calibration: Calibration

    def best(self, candidates: Mapping[str, Sequence[QuantParams]], title: str) -> dict[str, QuantParams]:
        """Of each tensor the one of its `candidates` with the smallest mean error, the first of several."""
        if not candidates:
            return {}
        samples, readers = list(self.calibration.samples), {name: self.readers[name] for name in candidates}
        samples *= -(-WINDOWS // len(samples))
        errors = measure_output_errors(self.model, readers, candidates, self.spec, samples, self.calibration.folder)
        rows = list(self.calibration.progress.track(title, errors, len(samples)))
        return {
            name: options[int(np.argmin(np.mean([row[name] for row in rows], axis=0)))]
            for name, options in candidates.items()
        }
