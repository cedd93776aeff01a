"""How close the embeddings of a quantized tower are to those of its float graph.

Averages are 2 % trimmed means: the worst 2 % of the samples are left out. A few outlier images would dominate them
otherwise: on one of 128, activations of align-tiny are 228 times as large as usual, and its INT8 embedding is wrong
with every observer. The same fraction is left out when activation ranges are measured
(align_calibration/histograms.py). Top-1 agreement counts every sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_calibration.histograms import OUTLIER_FRACTION
from align_runtime.parity import cosines

MAX_SQUARED_DISTANCE = 4.0  # between two unit vectors


@dataclass(frozen=True)
class Fidelity:
    """A tower's embeddings compared with those of its float graph.

    Attributes:
        cosine: 2 % trimmed mean over the samples of the cosine between the two embeddings; as they are, or with the
            mean of the float embeddings subtracted from both, whichever is smaller (see `align_runtime.parity.Parity`).
        agreement: top-1 agreement, the fraction of samples whose nearest embedding of the other tower is the same.
    """

    cosine: float
    agreement: float

    def __str__(self) -> str:
        return f"cosine {self.cosine:.5f}, top-1 agreement {100 * self.agreement:.1f} %"


@dataclass(frozen=True)
class FidelityTarget:
    """Lower bounds for a `Fidelity`; None for no bound."""

    cosine: float | None = None
    agreement: float | None = None

    def __str__(self) -> str:
        bounds = {"cosine": self.cosine, "agreement": self.agreement}
        return " and ".join(f"{name} {value:g}" for name, value in bounds.items() if value is not None)

    def is_met_by(self, fidelity: Fidelity) -> bool:
        """Whether `fidelity` meets both bounds; a NaN meets none."""
        return self.shortfall(fidelity) <= 0

    def shortfall(self, fidelity: Fidelity) -> float:
        """The largest distance of `fidelity` below a bound; infinity for a NaN, 0 or less where the target is met."""
        pairs = ((self.cosine, fidelity.cosine), (self.agreement, fidelity.agreement))
        distances = (np.inf if np.isnan(found) else bound - found for bound, found in pairs if bound is not None)
        return max(distances, default=0.0)


def measure_fidelity(actual: NDArray[Any], exact: NDArray[Any], others: NDArray[Any]) -> Fidelity:
    """Compares the embeddings `actual` with `exact`, those of the float graph; both (n, dim), n ≥ 3, unit rows.

    Args:
        others: embeddings of the other tower, (m, dim), unit rows, in which the nearest is searched.
    """
    left, right, candidates = (rows.astype(np.float64) for rows in (actual, exact, others))
    center = right.mean(axis=0)
    same = (left @ candidates.T).argmax(axis=1) == (right @ candidates.T).argmax(axis=1)
    same &= np.isfinite(left).all(axis=1)  # argmax of NaN is 0, which may agree by chance
    means = [1 - _trimmed_mean(1 - cosines(*rows)) for rows in ((left, right), (left - center, right - center))]
    return Fidelity(cosine=float(np.min(means)), agreement=float(same.mean()))


def embedding_error(actual: NDArray[np.float64], exact: NDArray[np.float64]) -> float:
    """2 % trimmed mean of the squared distance between embeddings, both (n, dim), n ≥ 1; from 0 to 4."""
    return _trimmed_mean(squared_distances(actual, exact))


def squared_distances(actual: NDArray[np.float64], exact: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distances between embeddings, both (n, dim): (n,), from 0 to 4."""
    distances = ((actual - exact) ** 2).sum(axis=1)
    # NaN, where an embedding is all zeros before its normalization, counts as the largest distance.
    found: NDArray[np.float64] = np.where(np.isnan(distances), MAX_SQUARED_DISTANCE, distances)
    return found


def _trimmed_mean(errors: NDArray[np.float64]) -> float:
    """Mean without the largest 2 %, rounded to whole samples: none of up to 25. NaNs sort last and count if not cut."""
    return float(np.sort(errors)[: len(errors) - round(OUTLIER_FRACTION * len(errors))].mean())
