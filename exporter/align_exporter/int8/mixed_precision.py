"""The fewest MACs in float with which an INT8 graph meets a target.

Parts are ranked by what quantising each of them alone does to the embeddings, for every MAC that it saves: errors of
parts add up, so the first of that order are the best to leave in float. How many are needed is then found by bisection,
on samples that nothing was calibrated on: the cosine grows with them. Decisions are counted one by one, and a part more
in float may cost one; bisection then finds a number that suffices and perhaps not the least. Leaving out one part at a
time instead would not see that the last eight blocks each suffice to spoil a image.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_calibration.quant_params import QuantParams
from align_exporter.graph.content import content_of
from align_exporter.int8.calibrate import QuantizationMethod
from align_exporter.int8.calibration import Calibration
from align_exporter.int8.fidelity import Fidelity, FidelityTarget, accuracy, embedding_error
from align_exporter.int8.units import unit_macs
from align_runtime.errors import BuildError
from align_runtime.precision import MIN_SHARE, percentage

RANKING_SAMPLES = 32  # of the calibration's; each is run once for every part
Finished = Callable[[Mapping[str, QuantParams], Collection[str]], ir.Model]  # of scales, and of parts that stay float


@dataclass(frozen=True)
class MixedPrecisionGoal:
    """What is asked of an INT8 graph.

    Attributes:
        target: of its accuracy on the samples of `held_out`, which nothing was calibrated on.
        others: the reference's embeddings of samples of the other tower, (m, dim), among which decisions are made.
        tokens: of a text, as MACs are counted.
    """

    target: FidelityTarget
    held_out: Calibration
    others: NDArray[np.float32]
    tokens: int


@dataclass(frozen=True)
class Candidate:
    """An INT8 graph that was tried.

    Attributes:
        kept: parts in float.
        share: of all MACs that are in INT8, from 0 to 1.
        accuracy: on the held-out samples.
    """

    kept: tuple[str, ...]
    share: float
    accuracy: Fidelity


@dataclass(frozen=True)
class _Attempts:
    """One graph with more and more parts in float."""

    model: ir.Model
    method: QuantizationMethod
    finished: Finished
    scales: Mapping[str, QuantParams]
    goal: MixedPrecisionGoal

    def quantized(self, kept: Collection[str]) -> ir.Model:
        return self.method.applied(self.model, self.scales, kept)

    def share(self, kept: Collection[str]) -> float:
        file = self.goal.held_out.folder / ".share.onnx"
        try:
            ir.save(self.quantized(kept), file)
            macs = content_of(file, self.goal.tokens).macs
        finally:
            file.unlink(missing_ok=True)
        return macs.get("int8", 0) / sum(macs.values())

    def point(self, kept: tuple[str, ...], exact: NDArray[np.float64]) -> Candidate:
        title = f"held-out samples, {len(kept)} parts in float"
        actual = self.goal.held_out.embeddings(self.finished(self.scales, kept), title)
        return Candidate(kept, self.share(kept), accuracy(actual, exact, self.goal.others))


def meet(
    goal: MixedPrecisionGoal,
    model: ir.Model,
    method: QuantizationMethod,
    finished: Finished,
    scales: Mapping[str, QuantParams],
    calibration: Calibration,
) -> tuple[Candidate, ...]:
    """All that was tried, the graph that meets `goal` with the fewest parts in float first, then by share.

    Args:
        model: float32; left as it is.
        method: float32 around INT8: what parts are ranked with.
        finished: makes the graph that will be written, in a form that computes on a CPU what its engine will.
        scales: of the tensors that `method` quantises.

    Raises:
        BuildError: the graph does not meet it with as few of its MACs in INT8 as `MIN_SHARE` allows.
    """
    attempts = _Attempts(model, method, finished, scales, goal)
    exact = goal.held_out.embeddings(model, "held-out samples, float")
    points = {0: attempts.point((), exact)}
    if goal.target.met_by(points[0].accuracy):
        return (points[0],)
    order = _ranking(attempts, calibration)
    most = bisect_right(range(len(order) + 1), -MIN_SHARE, key=lambda count: -attempts.share(order[:count])) - 1

    def met(count: int) -> bool:
        if count not in points:
            points[count] = attempts.point(order[:count], exact)
        return goal.target.met_by(points[count].accuracy)

    if most < 0 or not met(most):
        raise _missed(goal, points)
    chosen = points[bisect_left(range(most + 1), True, key=met)]
    return (chosen, *sorted((point for point in points.values() if point is not chosen), key=lambda point: point.share))


def _ranking(attempts: _Attempts, calibration: Calibration) -> tuple[str, ...]:
    """The parts, those first whose quantisation costs most for the MACs that it saves."""
    parts = unit_macs(attempts.method.operators(attempts.model.graph))
    stride = -(-len(calibration.samples) // RANKING_SAMPLES)
    few = replace(calibration, samples=calibration.samples[::stride])
    exact = few.embeddings(attempts.model, "sensitivity, float")
    errors = {}
    for number, part in enumerate(parts, start=1):
        alone = attempts.quantized([other for other in parts if other != part])
        title = f"sensitivity {number} of {len(parts)}, {part}"
        errors[part] = embedding_error(few.embeddings(alone, title), exact)
    return tuple(sorted(parts, key=lambda part: -errors[part] / parts[part]))


def _missed(goal: MixedPrecisionGoal, points: Mapping[int, Candidate]) -> BuildError:
    best = min(points.values(), key=lambda point: goal.target.shortfall(point.accuracy))
    share = percentage(round(1000 * best.share), 1000)
    return BuildError(
        f"the target, {goal.target}, cannot be met with {100 * MIN_SHARE:.0f} % of the MACs in INT8. It got as far as "
        f"{best.accuracy} on {len(goal.held_out.samples)} held-out samples, with {share} in INT8 and "
        f"{len(best.kept)} parts in float. Calibrate on more samples of the kind that the service sees (--images, "
        "--captions), ask for less, or leave --int8 out"
    )
