"""What quantising a tower changes: embeddings, and decisions between them.

A network may run away on a image: on one of 128, activations of align-tiny get 228 times as large as usual, and its
INT8 embedding is another one whatever is tried. Where averages decide, such samples would decide alone, so the worst
fiftieth is left out, as runaways are where ranges are measured (align_calibration/histograms.py). Of decisions all
count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_calibration.histograms import OUTLIER_FRACTION
from align_runtime.parity import cosines

LARGEST_ERROR = 4.0  # of two unit vectors


@dataclass(frozen=True)
class Fidelity:
    """A tower's embeddings beside those of its float graph.

    Attributes:
        cosine: of the two embeddings of a sample, the mean over all but the worst fiftieth, rounded to whole samples;
            as they are or with the float graph's mean row taken from both, whichever is smaller: see
            `align_runtime.parity.Parity`.
        agreement: share of the samples whose nearest sample of the other tower stays the same.
    """

    cosine: float
    agreement: float

    def __str__(self) -> str:
        return f"cosine {self.cosine:.5f}, {100 * self.agreement:.1f} % of the decisions the same"


@dataclass(frozen=True)
class FidelityTarget:
    """What is asked of an `Fidelity`; None where nothing is."""

    cosine: float | None = None
    agreement: float | None = None

    def __str__(self) -> str:
        asked = {"cosine": self.cosine, "agreement": self.agreement}
        return " and ".join(f"{name} {value:g}" for name, value in asked.items() if value is not None)

    def met_by(self, accuracy: Fidelity) -> bool:
        """Whether `accuracy` is what is asked for; a NaN never is."""
        return self.shortfall(accuracy) <= 0

    def shortfall(self, accuracy: Fidelity) -> float:
        """What `accuracy` lacks of what is asked for most, infinity for a NaN; not positive where it is met."""
        pairs = ((self.cosine, accuracy.cosine), (self.agreement, accuracy.agreement))
        lacks = (np.inf if np.isnan(found) else least - found for least, found in pairs if least is not None)
        return max(lacks, default=0.0)


def accuracy(actual: NDArray[Any], exact: NDArray[Any], others: NDArray[Any]) -> Fidelity:
    """Accuracy of the embeddings `actual`, where the float graph gives `exact`, both (n, dim), n ≥ 3, unit rows.

    Args:
        others: embeddings of the other tower, (m, dim), unit rows, among which the nearest is sought.
    """
    left, right, candidates = (rows.astype(np.float64) for rows in (actual, exact, others))
    centre = right.mean(axis=0)
    same = (left @ candidates.T).argmax(axis=1) == (right @ candidates.T).argmax(axis=1)
    same &= np.isfinite(left).all(axis=1)  # what is no number decides nothing, and argmax says 0
    worst = [1 - _usual_mean(1 - cosines(*rows)) for rows in ((left, right), (left - centre, right - centre))]
    return Fidelity(cosine=float(np.min(worst)), agreement=float(same.mean()))


def embedding_error(actual: NDArray[np.float64], exact: NDArray[np.float64]) -> float:
    """Mean square of the distance between embeddings, both (n, dim), n ≥ 1, but for the worst fiftieth; from 0 to 4."""
    distances = ((actual - exact) ** 2).sum(axis=1)
    # Not a number where the embedding is all zeros: as far as unit vectors can be.
    return _usual_mean(np.where(np.isnan(distances), LARGEST_ERROR, distances))


def _usual_mean(errors: NDArray[np.float64]) -> float:
    """Mean without the largest fiftieth, none of up to 25; a NaN is the largest, and one among the others a NaN."""
    return float(np.sort(errors)[: len(errors) - round(OUTLIER_FRACTION * len(errors))].mean())
