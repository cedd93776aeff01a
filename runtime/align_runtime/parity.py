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
# that align-verify believes. They are the exporter's own (align_exporter/variants.py), of all towers and devices.
WIDEST: Mapping[str, Limits] = {
    "fp32": Limits(max_abs=5e-5, min_cosine=0.999999, min_centred_cosine=0.99999),
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
            the inputs are compared. NaN with fewer than three rows, where centring is meaningless.
        worst: label of the row with the largest absolute difference.
    """

    rows: int
    max_abs: float
    min_cosine: float
    min_centred_cosine: float
    worst: str

    def check(self, subject: str, limits: Limits) -> None:
        """Raises ParityError unless everything is within `limits`. NaN never is, except as `min_centred_cosine`."""
        if not self.max_abs <= limits.max_abs:
            raise ParityError(subject, "max_abs", limits.max_abs, self.max_abs, self.worst)
        if not self.min_cosine >= limits.min_cosine:
            raise ParityError(subject, "min_cosine", limits.min_cosine, self.min_cosine, self.worst)
        if self.min_centred_cosine < limits.min_centred_cosine:  # NaN only means too few rows
            raise ParityError(
                subject, "min_centred_cosine", limits.min_centred_cosine, self.min_centred_cosine, self.worst
            )

    def to_json(self) -> dict[str, Any]:
        """The fields, with None in place of NaN, which JSON does not have."""
        values = asdict(self)
        if np.isnan(self.min_centred_cosine):
            values["min_centred_cosine"] = None
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> Parity:
        centred = require(where, values, "min_centred_cosine", (float, type(None)))
        return cls(
            rows=number(where, values, "rows", int, 0, MAX_ROWS),
            max_abs=number(where, values, "max_abs", float, 0, sys.float_info.max),
            min_cosine=number(where, values, "min_cosine", float, -MAX_COSINE, MAX_COSINE),
            min_centred_cosine=float("nan")
            if centred is None
            else number(where, values, "min_centred_cosine", float, -MAX_COSINE, MAX_COSINE),
            worst=text(where, values, "worst"),
        )


def compare(actual: NDArray[np.floating], expected: NDArray[np.floating], labels: Sequence[str]) -> Parity:
    """Compares `actual` with `expected`, both (n, dim) with n ≥ 1, in float64. Row i is named ``labels[i]``.

    Raises:
        ValueError: the shapes do not agree, a mistake of the caller.
    """
    if actual.shape != expected.shape or actual.ndim != 2 or len(labels) != len(actual) or len(actual) == 0:
        raise ValueError(f"cannot compare {actual.shape} with {expected.shape} under {len(labels)} labels")
    left, right = actual.astype(np.float64), expected.astype(np.float64)
    difference = np.abs(left - right).max(axis=1)
    worst = int(np.nanargmax(difference)) if not np.isnan(difference).any() else int(np.argmax(np.isnan(difference)))
    centre = right.mean(axis=0)
    centred = cosines(left - centre, right - centre).min() if len(left) > 2 else np.nan
    return Parity(
        rows=len(left),
        max_abs=float(difference[worst]),
        min_cosine=float(cosines(left, right).min()),
        min_centred_cosine=float(centred),
        worst=labels[worst],
    )


def cosines(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine of each row of `left` (n, dim) with the same row of `right`; NaN for a row of zeros."""
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (left * right).sum(axis=1) / norms
