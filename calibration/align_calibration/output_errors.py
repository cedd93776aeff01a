"""What the rounding of a tensor costs the layers that read it: the error of their output, for several scales.

A range that suits the values of a tensor may not suit its readers. Weights are small for some channels, a kernel that
looks for edges cancels an error that its neighbours share, and an error that all positions share adds up. So the
operators behind a tensor run twice, on its values and on these values rounded, and the outputs are compared. All scales
of a tensor are tried in one run, side by side on the batch axis. Of a feature map a window is taken, at another place
in each sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_calibration.quant_params import QuantParams, QuantSpec
from align_calibration.run_instrumented import Batch, run_batches, set_output, values_by_name

WINDOW_ELEMENTS = 1 << 12  # about as many values of a tensor are taken from one sample
MAX_SIDE = 8  # of a window
OUTPUT_SIDE = 3  # at least, of what is computed of a window
PLACE = "window/place"  # input of the instrumented graph: where windows are, from 0 to 1 in height and width
LOST = 0.1  # an output with such an error is another one; larger errors are no worse
LEAST_POWER = np.array([1e-30], np.float32)


def measure_output_errors(
    model: ir.Model,
    readers: Mapping[str, Sequence[ir.Node]],
    scales: Mapping[str, Sequence[QuantParams]],
    spec: QuantSpec,
    samples: Sequence[Batch],
    folder: Path,
) -> Iterator[Mapping[str, NDArray[np.float64]]]:
    """Yields for each of `samples` the errors of each tensor of `readers` with each of its `scales`, float64 (scales,).

    An error is the mean square of the differences in the window over the mean square of the whole output of that
    sample, at most `LOST`: a sample that is lost with every scale must not decide which of them the others get.

    Args:
        model: float32; not modified.
        readers: by the name of a feature map (1, channels, height, width), the operators of `model` that compute an
            output of it, in order. What else they read are constants, and gates (1, channels, 1, 1).
        spec: of the integers of `scales`.
        samples: inputs by name, batches of one.
        folder: as in `align_calibration.run_instrumented.run_batches`.

    Raises:
        ValueError: no samples.
    """
    instrumented = model.clone()
    graph = instrumented.graph
    place = ir.val(PLACE, dtype=ir.DataType.FLOAT, shape=ir.Shape([2]))
    graph.inputs.append(place)
    tape, values = ir.tape.Tape(graph), values_by_name(graph)
    found = [
        _Reading(tape, values, values[name], nodes).errors(place, _bounds(scales[name], spec))
        for name, nodes in readers.items()
    ]
    counts = [len(scales[name]) for name in readers]
    set_output(graph, tape, found, [sum(counts)])
    random = np.random.default_rng(0)
    batches = ({**sample, PLACE: random.random(2, dtype=np.float32)} for sample in samples)
    for output in run_batches(instrumented, batches, folder):
        parts = np.split(np.fmin(output.astype(np.float64), LOST), np.cumsum(counts)[:-1])
        yield dict(zip(readers, parts, strict=True))


@dataclass(frozen=True)
class _Reading:
    """The tensor `value` of the instrumented graph with these `values`, and the operators `nodes` that read it."""

    tape: ir.tape.Tape
    values: Mapping[str, ir.Value]
    value: ir.Value
    nodes: Sequence[ir.Node]

    def errors(self, place: ir.Value, bounds: NDArray[np.float32]) -> ir.Value:
        """The error with each of the scales that `bounds` are of, (scales,)."""
        tape, name = self.tape, f"outputs/{self.value.name}"
        least = OUTPUT_SIDE + sum(_kernel(node) - 1 for node in self.nodes)
        window, cut = _window(tape, name, place, self.value, least)
        scale, low, high = (_constant(tape, f"{name}/{part}", row) for part, row in zip("slh", bounds, strict=True))
        integers = tape.op("Round", [tape.op("Div", [window, scale])])
        rounded = tape.op("Mul", [tape.op("Min", [tape.op("Max", [integers, low]), high]), scale])
        exact, actual = (self._output(start, cut) for start in (window, rounded))
        whole = self.values[self.nodes[-1].outputs[0].name or ""]
        axes = _constant(tape, f"{name}/axes", np.array([1, 2, 3]))
        error, power = (
            tape.op("ReduceMean", [tape.op("Mul", [part, part]), axes], {"keepdims": 0})
            for part in (tape.op("Sub", [actual, exact]), whole)
        )
        return tape.op("Div", [error, tape.op("Max", [power, _constant(tape, f"{name}/least", LEAST_POWER)])])

    def _output(self, start: ir.Value, cut: tuple[bool, bool]) -> ir.Value:
        """What the operators compute with `start` in place of the tensor.

        Args:
            cut: whether the height and the width of `start` are those of a window.
        """
        known = {**self.values, self.value.name or "": start}
        for node in self.nodes:
            inputs = [None if part is None else known[part.name or ""] for part in node.inputs]
            attributes = {key: attribute.value for key, attribute in node.attributes.items()}
            if node.op_type == "Conv":
                # A window has neighbours, where a feature map has padding.
                pads = node.attributes.get_ints("pads", [0, 0, 0, 0])
                attributes["pads"] = [0 if is_cut else pad for pad, is_cut in zip(pads, (*cut, *cut), strict=True)]
            output = self.tape.op(node.op_type, inputs, attributes, domain=node.domain)
            known[node.outputs[0].name or ""] = output
        return output


def _bounds(scales: Sequence[QuantParams], spec: QuantSpec) -> NDArray[np.float32]:
    """Scales, and the smallest and largest integer less the zero point, (3, scales, 1, 1, 1)."""
    rows = [(p.scale, spec.quant_min - p.zero_point, spec.quant_max - p.zero_point) for p in scales]
    return np.array(rows, np.float32).T[:, :, None, None, None]


def _kernel(node: ir.Node) -> int:
    """The longer side of the kernel of a convolution; 1 for any other operator."""
    weights = node.inputs[1] if node.op_type == "Conv" else None
    return 1 if weights is None else max(size for size in (weights.shape or ())[2:] if isinstance(size, int))


def _window(
    tape: ir.tape.Tape, name: str, place: ir.Value, value: ir.Value, least: int
) -> tuple[ir.Value, tuple[bool, bool]]:
    """A window of `value` with sides of at `least` so many values, and whether its height and its width are cut."""
    channels, *sides = (size for size in (value.shape or ())[1:] if isinstance(size, int))
    side = max(min(isqrt(WINDOW_ELEMENTS // channels), MAX_SIDE), least)
    room = np.array([max(size - side, 0) for size in sides], np.float32)
    if not room.any():
        return value, (False, False)
    scaled = tape.op("Mul", [place, _constant(tape, f"{name}/room", room + np.float32(0.999) * (room > 0))])
    starts = tape.op("Cast", [tape.op("Floor", [scaled])], {"to": ir.DataType.INT64})
    ends = tape.op("Add", [starts, _constant(tape, f"{name}/side", np.array([side, side]))])
    axes = _constant(tape, f"{name}/space", np.array([2, 3]))
    height, width = (bool(part) for part in room > 0)
    return tape.op("Slice", [value, starts, ends, axes]), (height, width)


def _constant(tape: ir.tape.Tape, name: str, numbers: NDArray[np.generic]) -> ir.Value:
    return tape.initializer(ir.tensor(numbers, name=name))
