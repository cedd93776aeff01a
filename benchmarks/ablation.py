"""Ways of making INT8 more accurate that were tried and are not in the product: what they gain is measured.

Bias correction: the mean of every channel of a convolution in INT8 is moved to that of the float graph, by its bias, a
few convolutions at a time in the order of the graph (as in Nagel et al., "Data-Free Quantization Through Weight
Equalization and Bias Correction", ICCV 2019, section 4.2, with measured means).

Equalisation: channels of a residual stream get equal ranges. A factor per channel is divided out of the convolutions
that write the stream and multiplied into those that read it; sums in between are linear. Across a swish, which is not,
no factor can be moved, so this is the one place in EfficientNet where it is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from align_exporter.int8.cpu_vision import quantized_nodes

AT_ONCE = 6  # convolutions whose biases are corrected together
TAIL = 0.05  # of the samples, left out at either end of a mean: runaways
BATCH = 16
Quantize = Callable[[ir.Model], ir.Model]


def correct_biases(model: ir.Model, quantize: Quantize, pixels: NDArray[np.uint8], folder: Path) -> None:
    """Corrects the biases of the float `model` in place, for what `quantize` makes of it."""
    names = [node.name or "" for node in quantized_nodes(model.graph) if node.op_type == "Conv"]
    exact = _means(model, names, pixels, folder)
    nodes = {node.name: node for node in model.graph}
    for start in range(0, len(names), AT_ONCE):
        chosen = names[start : start + AT_ONCE]
        found = _means(quantize(model), chosen, pixels, folder)
        for name in chosen:
            bias = nodes[name].inputs[2]
            _replace(bias, bias.const_value.numpy() + _usual(exact[name] - found[name]))


def equalise(model: ir.Model, pixels: NDArray[np.uint8], folder: Path) -> int:
    """Equalises the residual streams of the float `model` in place; returns how many there are."""
    streams = _streams(model.graph)
    largest = _largest(model, [value.name for stream in streams for value in stream], pixels, folder)
    for stream in streams:
        ranges = np.max([largest[value.name] for value in stream], axis=0)
        factors = ranges / ranges.max()
        for value in stream:
            producer = value.producer()
            if producer.op_type == "Conv":
                for constant in producer.inputs[1:]:
                    values = constant.const_value.numpy()
                    _replace(constant, values / factors.reshape(-1, *[1] * (values.ndim - 1)))
            for reader in [use.node for use in value.uses() if use.node.op_type == "Conv"]:
                weights = reader.inputs[1]
                _replace(weights, weights.const_value.numpy() * factors.reshape(1, -1, 1, 1))
    return len(streams)


def _streams(graph: ir.Graph) -> list[list[ir.Value]]:
    """Tensors that are linked by sums, where only convolutions and sums write and read them."""
    ends = {node.outputs[0] for node in quantized_nodes(graph) if node.op_type in ("Conv", "Add")}
    streams, seen = [], set()
    for value in sorted(ends, key=lambda value: value.name):
        linked, border = set(), [value]
        while border:
            current = border.pop()
            if current in linked:
                continue
            linked.add(current)
            producer = current.producer()
            if producer is not None and producer.op_type == "Add":
                border += producer.inputs
            border += [use.node.outputs[0] for use in current.uses() if use.node.op_type == "Add"]
        if not linked & seen and all(other in ends and _is_linear(other) for other in linked):
            streams.append(sorted(linked, key=lambda value: value.name))
        seen |= linked
    return streams


def _is_linear(value: ir.Value) -> bool:
    readers = [use.node for use in value.uses()]
    return bool(readers) and all(
        node.op_type == "Add" or (node.op_type == "Conv" and node.attributes.get_int("group", 1) == 1)
        for node in readers
    )


def _replace(constant: ir.Value, values: NDArray[np.floating]) -> None:
    constant.const_value = ir.tensor(values.astype(np.float32), name=constant.name)


def _usual(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Mean over the samples, (samples, channels) → (channels,), without the ends."""
    cut = int(TAIL * len(values))
    return np.sort(values, axis=0)[cut : len(values) - cut].mean(axis=0)


def _means(
    model: ir.Model, names: Sequence[str], pixels: NDArray[np.uint8], folder: Path
) -> Mapping[str, NDArray[np.floating]]:
    """Means over the image, (samples, channels) by tensor."""
    parts = _outputs(model, names, pixels, folder, lambda values: values.mean(axis=(2, 3)))
    return {name: np.concatenate(part) for name, part in parts.items()}


def _largest(
    model: ir.Model, names: Sequence[str], pixels: NDArray[np.uint8], folder: Path
) -> Mapping[str, NDArray[np.floating]]:
    """Largest magnitude of each channel over all but the worst samples, (channels,) by tensor."""
    parts = _outputs(model, names, pixels, folder, lambda values: np.abs(values).max(axis=(2, 3)))
    return {name: np.quantile(np.concatenate(part), 1 - TAIL, axis=0) for name, part in parts.items()}


def _outputs(
    model: ir.Model, names: Sequence[str], pixels: NDArray[np.uint8], folder: Path, reduce: Callable[..., NDArray]
) -> Mapping[str, list[NDArray[np.floating]]]:
    watched, file = model.clone(), folder / "watched.onnx"
    values = {output.name: output for node in watched.graph for output in node.outputs}
    watched.graph.outputs.clear()
    watched.graph.outputs.extend(values[name] for name in names)
    ir.save(watched, file)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    parts: dict[str, list[NDArray[np.floating]]] = {name: [] for name in names}
    for start in range(0, len(pixels), BATCH):
        for name, output in zip(names, session.run(None, {"pixels": pixels[start : start + BATCH]}), strict=True):
            parts[name].append(reduce(output))
    return parts
