"""Mixed precision: the fewest MACs in float with which an INT8 graph reaches a fidelity target.

A part is quantized, or left in float, as a whole. In EfficientNet that is a block: most of what INT8 costs there is the
rounding of activations between its operators, so one float convolution among INT8 ones gains nothing. In BERT it is a
dense layer with its input.

Parts are ranked by what quantizing each of them alone costs the embeddings, per MAC that it saves: errors of parts add
up, so the first of that order are the best to leave in float. How many are needed is then found by bisection on
held-out samples, because the cosine grows with their number. Top-1 agreement is counted sample by sample, and one more
part in float may lower it; bisection then finds a number that suffices and perhaps not the smallest. Removing one part
at a time instead would miss that each of the last eight blocks alone can spoil an image.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_calibration.quant_params import QuantParams
from align_exporter.graph.content import content_of
from align_exporter.int8.calibrate import QuantizationMethod
from align_exporter.int8.calibration_samples import Calibration
from align_exporter.int8.fidelity import Fidelity, FidelityTarget, embedding_error, measure_fidelity
from align_runtime.errors import BuildError
from align_runtime.precision import MIN_SHARE, percentage

BLOCK = re.compile(r"vision_model\.embeddings|.*?\.blocks\.\d+(?=[./])")


def unit_of(node: ir.Node) -> str:
    """Name of the part that `node` belongs to: that of its block, or its own."""
    block = BLOCK.match(node.name or "")
    return block[0] if block else node.name or ""


def stays_float(node: ir.Node, kept: Collection[str]) -> bool:
    """Whether `node`, or the part that it belongs to, is among the names in `kept`."""
    return node.name in kept or unit_of(node) in kept


def unit_macs(nodes: Iterable[ir.Node]) -> dict[str, int]:
    """The parts that `nodes` belong to, in order, with their MACs for one image or one token."""
    macs: Counter[str] = Counter()
    for node in nodes:
        macs[unit_of(node)] += _macs(node)
    return dict(macs)


def _macs(node: ir.Node) -> int:
    if node.op_type not in ("Conv", "MatMul", "Gemm"):
        return 0
    weights, shape = node.inputs[1], node.outputs[0].shape
    if weights is None or weights.shape is None or shape is None:
        raise ValueError(f"{node.name} has weights or an output without a shape")
    sizes = [size for size in weights.shape if isinstance(size, int)]
    if node.op_type != "Conv":
        return prod(sizes)
    pixels = prod(size for size in shape[2:] if isinstance(size, int))
    return pixels * prod(sizes)  # (out, in / group, height, width): one MAC for each output channel and pixel


RANKING_SAMPLES = 32  # of the calibration's; each is run once for every part
# Makes the quantized graph, given scales and the parts that stay float, in a form that computes on a CPU what its
# target's hardware computes.
Emulated = Callable[[Mapping[str, QuantParams], Collection[str]], ir.Model]


@dataclass(frozen=True)
class MixedPrecisionGoal:
    """What an INT8 graph has to reach.

    Attributes:
        target: its fidelity on the samples of `held_out`, which are not calibrated on.
        others: the reference's embeddings of samples of the other tower, (m, dim), for top-1 agreement.
        tokens: of a text, as MACs are counted.
    """

    target: FidelityTarget
    held_out: Calibration
    others: NDArray[np.float32]
    tokens: int


@dataclass(frozen=True)
class Candidate:
    """A mixed-precision graph that was tried.

    Attributes:
        kept: parts in float.
        share: of the MACs in INT8, from 0 to 1.
        fidelity: on the held-out samples.
    """

    kept: tuple[str, ...]
    share: float
    fidelity: Fidelity


@dataclass(frozen=True)
class _Search:
    """One graph with more and more parts in float."""

    model: ir.Model
    method: QuantizationMethod
    emulated: Emulated
    scales: Mapping[str, QuantParams]
    goal: MixedPrecisionGoal

    def quantized(self, kept: Collection[str]) -> ir.Model:
        return self.method.applied(self.model, self.scales, kept)

    def share(self, kept: Collection[str]) -> float:
        macs = content_of(self.quantized(kept), self.goal.tokens).macs
        return macs.get("int8", 0) / sum(macs.values())

    def candidate(self, kept: tuple[str, ...], exact: NDArray[np.float64]) -> Candidate:
        title = f"held-out samples, {len(kept)} parts in float"
        actual = self.goal.held_out.embeddings(self.emulated(self.scales, kept), title)
        return Candidate(kept, self.share(kept), measure_fidelity(actual, exact, self.goal.others))


def meet_target(
    goal: MixedPrecisionGoal,
    model: ir.Model,
    method: QuantizationMethod,
    emulated: Emulated,
    scales: Mapping[str, QuantParams],
    calibration: Calibration,
) -> tuple[Candidate, ...]:
    """All candidates, the one that reaches `goal` with the fewest parts in float first, the others by share.

    Args:
        model: float32; left as it is.
        method: quantizes `model` in float32, which the parts are ranked with.
        emulated: makes the graph that will be written.
        scales: of the tensors that `method` quantizes.

    Raises:
        BuildError: the target is not reached with `MIN_SHARE` of the MACs in INT8.
    """
    search = _Search(model, method, emulated, scales, goal)
    exact = goal.held_out.embeddings(model, "held-out samples, float")
    candidates = {0: search.candidate((), exact)}
    if goal.target.is_met_by(candidates[0].fidelity):
        return (candidates[0],)
    order = _ranking(search, calibration)
    most = bisect_right(range(len(order) + 1), -MIN_SHARE, key=lambda count: -search.share(order[:count])) - 1

    def met(count: int) -> bool:
        if count not in candidates:
            candidates[count] = search.candidate(order[:count], exact)
        return goal.target.is_met_by(candidates[count].fidelity)

    if most < 0 or not met(most):
        raise _missed(goal, candidates)
    chosen = candidates[bisect_left(range(most + 1), True, key=met)]
    others = (candidate for candidate in candidates.values() if candidate is not chosen)
    return (chosen, *sorted(others, key=lambda candidate: candidate.share))


def _ranking(search: _Search, calibration: Calibration) -> tuple[str, ...]:
    """The parts, those first whose quantization costs most per MAC that it saves."""
    parts = unit_macs(search.method.operators(search.model.graph))
    few = calibration.at_most(RANKING_SAMPLES)
    exact = few.embeddings(search.model, "sensitivity, float")
    errors = {}
    for number, part in enumerate(parts, start=1):
        alone = search.quantized([other for other in parts if other != part])
        title = f"sensitivity {number} of {len(parts)}, {part}"
        errors[part] = embedding_error(few.embeddings(alone, title), exact)
    return tuple(sorted(parts, key=lambda part: -errors[part] / parts[part]))


def _missed(goal: MixedPrecisionGoal, candidates: Mapping[int, Candidate]) -> BuildError:
    best = min(candidates.values(), key=lambda candidate: goal.target.shortfall(candidate.fidelity))
    share = percentage(round(1000 * best.share), 1000)
    return BuildError(
        f"the target, {goal.target}, is not reached with {100 * MIN_SHARE:.0f} % of the MACs in INT8; the best "
        f"candidate has {best.fidelity} on {len(goal.held_out.samples)} held-out samples, with {share} in INT8 and "
        f"{len(best.kept)} parts in float. Calibrate on more samples like those of the service (--calibration-images, "
        "--calibration-captions), lower the target, or leave --int8 out"
    )
