"""Weights that lose little in INT8: outlier channels are moved into them, then they are rounded together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from align_calibration.channel_ranges import ChannelRange, measure_channel_ranges, merged
from align_calibration.quant_params import QuantParams
from align_calibration.second_moments import measure_moments
from align_exporter.graph.ir_helpers import name_of, operand
from align_exporter.int8.calibrate import QuantizationMethod
from align_exporter.int8.calibration_samples import Calibration
from align_exporter.int8.fidelity import squared_distances
from align_exporter.int8.migrate_outliers import MIGRATIONS, UNCHANGED, migrate_outliers
from align_exporter.int8.round_weights import RoundedWeights, layer_scales, replace_weights, round_weights

# Samples that moments are measured on: of an image 256 positions of each feature map, of a caption a dozen tokens.
MAX_IMAGES, MAX_CAPTIONS = 32, 128
WEIGHTED = ("Conv", "MatMul", "Gemm")
DENSE = ("MatMul", "Gemm")


@dataclass(frozen=True)
class Prepared:
    """A graph whose weights are ready for INT8.

    Attributes:
        method: the method of before with the `weights` in place of those of the graph.
        weights: rounded, by the name of their layer.
        migration: name of what was done to outlier channels, of `MIGRATIONS`.
    """

    method: QuantizationMethod
    weights: Mapping[str, RoundedWeights]
    migration: str


# Weights that were rounded on the samples of a calibration: those of a layer, for what it reads and with which scales.
RoundedLayers = dict[tuple[str, str, bytes], RoundedWeights]


def prepare_weights(
    model: ir.Model, method: QuantizationMethod, calibration: Calibration, known: RoundedLayers | None = None
) -> Prepared:
    """Moves outlier channels in `model`, in place, which is exact, and rounds a copy of its weights.

    The weights of `model` are not rounded: a part that stays float computes with them.

    Args:
        known: weights that need not be rounded again; those that are, are added. For graphs of one network whose
            tensors of one name have the same values. None where outlier channels may move.
    """
    migration, ranges = _choose_migration(model, method, calibration)
    _migrate(model, method, ranges, migration)
    layers = [node for node in method.operators(model.graph) if node.op_type in WEIGHTED]
    weights = _rounded(model, layers, method, calibration, {} if known is None else known)

    def apply(graph: ir.Model, scales: Mapping[str, QuantParams], kept: Collection[str]) -> object:
        replace_weights(graph, weights, kept)
        return method.apply(graph, scales, kept)

    return Prepared(replace(method, apply=apply), weights, migration)


def _rounded(
    model: ir.Model,
    layers: Sequence[ir.Node],
    method: QuantizationMethod,
    calibration: Calibration,
    known: RoundedLayers,
) -> Mapping[str, RoundedWeights]:
    """The rounded weights of `layers`, by name."""
    scales = {node: layer_scales(node, method.weight_scales) for node in layers}
    keys = {node: (name_of(node), name_of(operand(node, 0)), scales[node].tobytes()) for node in layers}
    missing = [node for node in layers if keys[node] not in known]
    if missing:
        most = MAX_IMAGES if any(node.op_type == "Conv" for node in missing) else MAX_CAPTIONS
        samples = calibration.samples[:: -(-len(calibration.samples) // most)]
        moments = measure_moments(model, missing, samples, calibration.folder)
        for node, measured in calibration.progress.track("calibration: weights", moments, len(missing)):
            known[keys[node]] = round_weights(node, scales[node], measured)
    return {name_of(node): known[keys[node]] for node in layers}


def _choose_migration(
    model: ir.Model, method: QuantizationMethod, calibration: Calibration
) -> tuple[str, Mapping[str, ChannelRange]]:
    """The best of `MIGRATIONS`, and the ranges of all samples, which it is to be fitted to.

    Each is fitted to one half of the samples and judged on the other, both ways. The mean error decides, without the
    worst tenth: one half may lack the few samples in which a channel is large, and the whole has them. What is fitted
    to too few samples is wrong for more than a tenth of the others.
    """
    halves = [calibration.every(2, start) for start in (0, 1)]
    read = list(dict.fromkeys(name_of(operand(node, 0)) for node in _dense(model, method)))
    if not halves[1].samples or not read:
        return UNCHANGED, {}
    is_static, observe = bool(method.tensors(model.graph)), next(iter(method.tried.values()))
    exact = calibration.embeddings(model, "calibration: outlier channels, float")
    ranges = [measure_channel_ranges(model, read, half.samples, half.folder) for half in halves]
    means: dict[str, float] = {}
    for name, migration in MIGRATIONS.items():
        if migration.shifted and not is_static:
            continue  # the scale of a token would be that of its largest shift
        errors = []
        for fitted, judged in ((0, 1), (1, 0)):
            copy = model.clone()
            _migrate(copy, method, ranges[fitted], name)
            histograms = halves[fitted].histograms(copy, method.tensors(copy.graph)) if is_static else {}
            scales = {tensor: observe(histogram, method.spec) for tensor, histogram in histograms.items()}
            quantized = method.applied(copy, scales)
            title = f"calibration: outlier channels, {name}"
            errors.append(squared_distances(halves[judged].embeddings(quantized, title), exact[judged::2]))
        usual = np.sort(np.concatenate(errors))
        means[name] = float(usual[: len(usual) - len(usual) // 10].mean())
    return min(means, key=means.__getitem__), merged(*ranges)


def _migrate(model: ir.Model, method: QuantizationMethod, ranges: Mapping[str, ChannelRange], migration: str) -> None:
    if migration != UNCHANGED:
        migrate_outliers(model.graph, _dense(model, method), ranges, MIGRATIONS[migration])


def _dense(model: ir.Model, method: QuantizationMethod) -> list[ir.Node]:
    return [node for node in method.operators(model.graph) if node.op_type in DENSE]
