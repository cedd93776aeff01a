"""The distance of embeddings from those of the reference, and the limits that it is compared with."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_runtime.errors import ParityError
from align_runtime.json_files import number, require, text

MAX_ROWS = 1 << 32
MAX_COSINE = 1 + 1e-6  # rounding

MIN_CENTRED_ROWS = 3  # with fewer, every row lies opposite to the others of the centre: centring is meaningless


@dataclass(frozen=True)
class Limits:
    """What a graph must meet.

    Attributes:
        max_abs: largest absolute difference of a component that is allowed.
        min_cosine: smallest cosine of a row that is allowed.
        min_centred_cosine: the same after centring, see `Parity`.
    """

    max_abs: float
    min_cosine: float
    min_centred_cosine: float

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> Limits:
        """Reads the fields; rows of unit length differ by at most 2, so a limit beyond that is none."""
        return cls(
            max_abs=number(where, values, "max_abs", float, 0, MAX_DIFFERENCE),
            min_cosine=number(where, values, "min_cosine", float, -1, 1),
            min_centred_cosine=number(where, values, "min_centred_cosine", float, -1, 1),
        )

    def wider_than(self, other: Limits) -> tuple[str, ...]:
        """Names of the limits that allow more than those of `other`."""
        larger = ("max_abs",) if self.max_abs > other.max_abs else ()
        lower = ("min_cosine", "min_centred_cosine")
        return larger + tuple(name for name in lower if getattr(self, name) < getattr(other, name))


MAX_DIFFERENCE = 2.0
# A manifest says what its export allowed, and a stranger's says what a stranger likes: by precision, the widest limits
# that align-verify believes. They are the exporter's own (align_exporter/variants.py), of all towers and devices; that
# of bf16, which OpenVINO computes FP32 graphs in, is in no manifest and holds for every bundle: it follows from that of
# FP16 and 3 bits of mantissa less, 8 times the difference and 64 times the distance of a cosine from 1.
WIDEST: Mapping[str, Limits] = {
    "fp32": Limits(max_abs=5e-5, min_cosine=0.999999, min_centred_cosine=0.99999),
    "bf16": Limits(max_abs=0.16, min_cosine=0.968, min_centred_cosine=0.968),
    "fp16": Limits(max_abs=2e-2, min_cosine=0.9995, min_centred_cosine=0.9995),
    "int8": Limits(max_abs=0.1, min_cosine=0.95, min_centred_cosine=0.94),
}


@dataclass(frozen=True)
class Parity:
    """Distance between rows of embeddings and the same rows of the reference.

    Attributes:
        rows: number of rows compared.
        max_abs: largest absolute difference of a component.
        min_cosine: smallest cosine between a row and its reference.
        min_centred_cosine: the same after the mean row of the reference is subtracted from both. The embeddings of a
            model share a large common part that makes every cosine look good; without it, the parts that distinguish
            the inputs are compared. NaN with fewer than `MIN_CENTRED_ROWS` rows, where centring is meaningless.
        worst: label of the worst row by the name of each measure above that was taken.
    """

    rows: int
    max_abs: float
    min_cosine: float
    min_centred_cosine: float
    worst: Mapping[str, str]

    def check(self, subject: str, limits: Limits) -> None:
        """Raises ParityError unless everything is within `limits`. NaN is only where centring is meaningless."""
        few = self.rows < MIN_CENTRED_ROWS
        within = {
            "max_abs": self.max_abs <= limits.max_abs,
            "min_cosine": self.min_cosine >= limits.min_cosine,
            "min_centred_cosine": few or self.min_centred_cosine >= limits.min_centred_cosine,
        }
        for metric, passed in within.items():
            if not passed:
                raise ParityError(
                    subject, metric, getattr(limits, metric), getattr(self, metric), self.worst.get(metric, "unknown")
                )

    def to_json(self) -> dict[str, Any]:
        """The fields, with None in place of NaN and infinity, which JSON does not have."""
        return {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> Parity:
        centred = require(where, values, "min_centred_cosine", (float, type(None)))
        worst = require(where, values, "worst", dict)
        return cls(
            rows=number(where, values, "rows", int, 0, MAX_ROWS),
            max_abs=number(where, values, "max_abs", float, 0, sys.float_info.max),
            min_cosine=number(where, values, "min_cosine", float, -MAX_COSINE, MAX_COSINE),
            min_centred_cosine=float("nan")
            if centred is None
            else number(where, values, "min_centred_cosine", float, -MAX_COSINE, MAX_COSINE),
            worst={metric: text(f"{where}: worst", worst, metric) for metric in worst},
        )


def compare(
    actual: NDArray[np.floating],
    expected: NDArray[np.floating],
    labels: Sequence[str],
    samples: NDArray[np.floating] | None = None,
) -> Parity:
    """Compares `actual` with `expected`, both (n, dim) with n ≥ 1, in float64. Row i is named ``labels[i]``.

    Args:
        samples: the rows of the reference whose mean centres both, (m, dim), where `expected` has some several times;
            None for `expected`.

    Raises:
        ValueError: the shapes do not agree, a mistake of the caller.
    """
    if actual.shape != expected.shape or actual.ndim != 2 or len(labels) != len(actual) or len(actual) == 0:
        raise ValueError(f"cannot compare {actual.shape} with {expected.shape} under {len(labels)} labels")
    left, right = actual.astype(np.float64), expected.astype(np.float64)
    centre = right.mean(axis=0) if samples is None else samples.astype(np.float64).mean(axis=0)
    # By row, and turned so that larger is worse.
    distances = {"max_abs": np.abs(left - right).max(axis=1), "min_cosine": -cosines(left, right)}
    if len(left) >= MIN_CENTRED_ROWS:
        distances["min_centred_cosine"] = -cosines(left - centre, right - centre)
    worst = {metric: int(np.nan_to_num(values, nan=np.inf).argmax()) for metric, values in distances.items()}
    centred = "min_centred_cosine"
    return Parity(
        rows=len(left),
        max_abs=float(distances["max_abs"][worst["max_abs"]]),
        min_cosine=-float(distances["min_cosine"][worst["min_cosine"]]),
        min_centred_cosine=-float(distances[centred][worst[centred]]) if centred in worst else float("nan"),
        worst={metric: labels[row] for metric, row in worst.items()},
    )


def cosines(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine of each row of `left` (n, dim) with the same row of `right`; NaN for a row of zeros."""
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (left * right).sum(axis=1) / norms
