"""How close INT8 embeddings are, and what is asked of them."""

from __future__ import annotations

import numpy as np
import pytest

from align_exporter.int8.accuracy import LARGEST_ERROR, Accuracy, Target, accuracy, embedding_error

ROWS = np.eye(4)[[0, 1, 2, 0, 1, 2]].astype(np.float64)
OTHERS = np.eye(4)


def rotated(rows: np.ndarray, index: int, angle: float) -> np.ndarray:
    """`rows` with one of them turned towards the fourth axis."""
    turned = rows.copy()
    turned[index] = np.cos(angle) * rows[index] + np.sin(angle) * np.eye(4)[3]
    return turned


def test_the_same_embeddings_are_perfect() -> None:
    assert accuracy(ROWS, ROWS, OTHERS) == Accuracy(cosine=pytest.approx(1.0), agreement=1.0)
    assert embedding_error(ROWS, ROWS) == 0


def test_decisions_count_every_sample_and_cosines_leave_the_worst_out() -> None:
    spoiled = rotated(ROWS, 2, 1.5)
    found = accuracy(spoiled, ROWS, OTHERS)
    assert found.agreement == pytest.approx(5 / 6)
    assert found.cosine == pytest.approx(1.0)
    twice = accuracy(rotated(spoiled, 4, 0.5), ROWS, OTHERS)
    assert twice.cosine < 0.98
    assert twice.agreement == pytest.approx(5 / 6)  # 0.5 is less than half of a right angle
    assert embedding_error(spoiled, ROWS) == 0
    assert embedding_error(rotated(spoiled, 4, 0.5), ROWS) == pytest.approx((2 - 2 * np.cos(0.5)) / 5)


def test_a_common_part_does_not_make_a_cosine_good() -> None:
    exact = ROWS + 10
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    wrong = exact[[1, 2, 0, 1, 2, 0]]
    assert accuracy(wrong, exact, OTHERS).cosine < 0


def test_embeddings_that_are_no_numbers_are_as_far_as_can_be() -> None:
    lost = ROWS.copy()
    lost[:2] = np.nan
    assert embedding_error(lost, ROWS) == pytest.approx(LARGEST_ERROR / 5)
    found = accuracy(lost, ROWS, OTHERS)
    assert np.isnan(found.cosine)
    assert not Target(cosine=0.0).met_by(found)


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (Target(cosine=0.9), True),
        (Target(cosine=0.99), False),
        (Target(agreement=0.8), True),
        (Target(agreement=0.9), False),
        (Target(0.9, 0.8), True),
        (Target(0.9, 0.9), False),
        (Target(0.99, 0.8), False),
    ],
)
def test_targets(target: Target, met: bool) -> None:
    assert target.met_by(Accuracy(cosine=0.95, agreement=0.85)) == met


def test_a_target_says_what_it_asks() -> None:
    assert str(Target(cosine=0.99)) == "cosine 0.99"
    assert str(Target(0.99, 0.9)) == "cosine 0.99 and agreement 0.9"
