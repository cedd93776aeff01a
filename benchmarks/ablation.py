"""Recipes that were tried to make INT8 more accurate and are not part of the export; their effect is measured.

Bias correction: the mean of every output channel of an INT8 convolution is moved to that of the float graph by its
bias, a few convolutions at a time in the order of the graph. As in Nagel et al., "Data-Free Quantization Through
Weight Equalization and Bias Correction", ICCV 2019, section 4.2, with measured means.

Equalization: the channels of a residual stream get equal ranges. A factor per channel is divided out of the
convolutions that write the stream and multiplied into those that read it; the sums in between are linear. A factor
cannot be moved through a SiLU, which is not linear. Residual streams are therefore the only place in EfficientNet
where equalization is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from align_exporter.int8.cpu_vision import quantized_nodes

CORRECTED_TOGETHER = 6  # convolutions
TAIL = 0.05  # share of the images left out at either end of a mean: outlier images
BATCH = 16
Quantize = Callable[[ir.Model], ir.Model]


def correct_biases(model: ir.Model, quantize: Quantize, pixels: NDArray[np.uint8], folder: Path) -> None:
    """Corrects the biases of the float `model` in place, so that `quantize` of it keeps the float means.

    Args:
        pixels: images, uint8 (n, height, width, 3).
        folder: for temporary graphs.
    """
    names = [node.name or "" for node in quantized_nodes(model.graph) if node.op_type == "Conv"]
    exact = _channel_means(model, names, pixels, folder)
    nodes = {node.name: node for node in model.graph}
    for start in range(0, len(names), CORRECTED_TOGETHER):
        chosen = names[start : start + CORRECTED_TOGETHER]
        found = _channel_means(quantize(model), chosen, pixels, folder)
        for name in chosen:
            bias = nodes[name].inputs[2]
            _replace(bias, bias.const_value.numpy() + _trimmed_mean(exact[name] - found[name]))


def equalize(model: ir.Model, pixels: NDArray[np.uint8], folder: Path) -> int:
    """Equalizes the residual streams of the float `model` in place; returns the number of streams."""
    streams = _residual_streams(model.graph)
    largest = _channel_ranges(model, [value.name for stream in streams for value in stream], pixels, folder)
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


def _residual_streams(graph: ir.Graph) -> list[list[ir.Value]]:
    """Tensors that are connected by additions, where only convolutions and additions write and read them."""
    outputs = {node.outputs[0] for node in quantized_nodes(graph) if node.op_type in ("Conv", "Add")}
    streams, seen = [], set()
    for value in sorted(outputs, key=lambda value: value.name):
        connected, border = set(), [value]
        while border:
            current = border.pop()
            if current in connected:
                continue
            connected.add(current)
            producer = current.producer()
            if producer is not None and producer.op_type == "Add":
                border += producer.inputs
            border += [use.node.outputs[0] for use in current.uses() if use.node.op_type == "Add"]
        if not connected & seen and all(other in outputs and _has_linear_readers(other) for other in connected):
            streams.append(sorted(connected, key=lambda value: value.name))
        seen |= connected
    return streams


def _has_linear_readers(value: ir.Value) -> bool:
    readers = [use.node for use in value.uses()]
    return bool(readers) and all(
        node.op_type == "Add" or (node.op_type == "Conv" and node.attributes.get_int("group", 1) == 1)
        for node in readers
    )


def _replace(constant: ir.Value, values: NDArray[np.floating]) -> None:
    constant.const_value = ir.tensor(values.astype(np.float32), name=constant.name)


def _trimmed_mean(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Mean over the images without the tails, (images, channels) → (channels,)."""
    cut = int(TAIL * len(values))
    return np.sort(values, axis=0)[cut : len(values) - cut].mean(axis=0)


def _channel_means(
    model: ir.Model, names: Sequence[str], pixels: NDArray[np.uint8], folder: Path
) -> Mapping[str, NDArray[np.floating]]:
    """Means over height and width, (images, channels) by tensor."""
    parts = _run(model, names, pixels, folder, lambda values: values.mean(axis=(2, 3)))
    return {name: np.concatenate(part) for name, part in parts.items()}


def _channel_ranges(
    model: ir.Model, names: Sequence[str], pixels: NDArray[np.uint8], folder: Path
) -> Mapping[str, NDArray[np.floating]]:
    """The largest magnitude of each channel without the outlier images, (channels,) by tensor."""
    parts = _run(model, names, pixels, folder, lambda values: np.abs(values).max(axis=(2, 3)))
    return {name: np.quantile(np.concatenate(part), 1 - TAIL, axis=0) for name, part in parts.items()}


def _run(
    model: ir.Model, names: Sequence[str], pixels: NDArray[np.uint8], folder: Path, reduce: Callable[..., NDArray]
) -> Mapping[str, list[NDArray[np.floating]]]:
    """The tensors `names` (batch, channels, height, width) on all images, reduced batch by batch."""
    watching, file = model.clone(), folder / "watching.onnx"
    values = {output.name: output for node in watching.graph for output in node.outputs}
    watching.graph.outputs.clear()
    watching.graph.outputs.extend(values[name] for name in names)
    ir.save(watching, file)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    parts: dict[str, list[NDArray[np.floating]]] = {name: [] for name in names}
    for start in range(0, len(pixels), BATCH):
        for name, output in zip(names, session.run(None, {"pixels": pixels[start : start + BATCH]}), strict=True):
            parts[name].append(reduce(output))
    return parts
