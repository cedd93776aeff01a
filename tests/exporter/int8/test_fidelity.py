"""Fidelity of INT8 embeddings and its targets."""

from __future__ import annotations

import numpy as np
import pytest

from align_exporter.int8.fidelity import (
    MAX_SQUARED_DISTANCE,
    Fidelity,
    FidelityTarget,
    embedding_error,
    measure_fidelity,
)

ROWS = np.tile(np.eye(4)[[0, 1, 2]], (17, 1))  # 51, one of which the trimmed mean leaves out
OTHERS = np.eye(4)


def rotated(rows: np.ndarray, index: int, angle: float) -> np.ndarray:
    """`rows` with one of them turned towards the fourth axis."""
    turned = rows.copy()
    turned[index] = np.cos(angle) * rows[index] + np.sin(angle) * np.eye(4)[3]
    return turned


def test_equal_embeddings_have_perfect_fidelity() -> None:
    assert measure_fidelity(ROWS, ROWS, OTHERS) == Fidelity(cosine=pytest.approx(1.0), agreement=1.0)
    assert embedding_error(ROWS, ROWS) == 0


def test_agreement_counts_every_sample_and_cosine_leaves_out_the_worst() -> None:
    spoiled = rotated(ROWS, 2, 1.5)
    found = measure_fidelity(spoiled, ROWS, OTHERS)
    assert found.agreement == pytest.approx(50 / 51)
    assert found.cosine == pytest.approx(1.0)
    twice = measure_fidelity(rotated(spoiled, 4, 0.5), ROWS, OTHERS)
    assert twice.cosine < 0.998
    assert twice.agreement == pytest.approx(50 / 51)  # 0.5 is less than half of a right angle
    assert embedding_error(spoiled, ROWS) == 0
    assert embedding_error(rotated(spoiled, 4, 0.5), ROWS) == pytest.approx((2 - 2 * np.cos(0.5)) / 50)


@pytest.mark.parametrize("count", [1, 8, 25])
def test_no_sample_is_left_out_of_up_to_25(count: int) -> None:
    rows = ROWS[:count]
    assert embedding_error(rotated(rows, 0, 0.5), rows) == pytest.approx((2 - 2 * np.cos(0.5)) / count)


def test_a_common_component_does_not_hide_a_wrong_cosine() -> None:
    exact = ROWS + 10
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    wrong = np.roll(exact, 1, axis=0)
    assert measure_fidelity(wrong, exact, OTHERS).cosine < 0


def test_nan_embeddings_have_the_largest_distance() -> None:
    lost = ROWS.copy()
    lost[:2] = np.nan
    assert embedding_error(lost, ROWS) == pytest.approx(MAX_SQUARED_DISTANCE / 50)
    found = measure_fidelity(lost, ROWS, OTHERS)
    assert np.isnan(found.cosine)
    assert not FidelityTarget(cosine=0.0).is_met_by(found)
    assert found.agreement == pytest.approx(49 / 51)  # NaN never agrees; its argmax, 0, would
    assert FidelityTarget(cosine=0.0).shortfall(found) == np.inf


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (FidelityTarget(cosine=0.9), True),
        (FidelityTarget(cosine=0.99), False),
        (FidelityTarget(agreement=0.8), True),
        (FidelityTarget(agreement=0.9), False),
        (FidelityTarget(0.9, 0.8), True),
        (FidelityTarget(0.9, 0.9), False),
        (FidelityTarget(0.99, 0.8), False),
    ],
)
def test_targets(target: FidelityTarget, met: bool) -> None:
    assert target.is_met_by(Fidelity(cosine=0.95, agreement=0.85)) == met


def test_the_shortfall_is_the_largest_distance_below_a_bound() -> None:
    found = Fidelity(cosine=0.95, agreement=0.85)
    assert FidelityTarget(cosine=0.96).shortfall(found) == pytest.approx(0.01)
    assert FidelityTarget(agreement=0.9).shortfall(found) == pytest.approx(0.05)
    assert FidelityTarget(0.96, 0.9).shortfall(found) == pytest.approx(0.05)
    assert FidelityTarget(0.9, 0.85).shortfall(found) <= 0


def test_a_target_is_printed_with_its_bounds() -> None:
    assert str(FidelityTarget(cosine=0.99)) == "cosine 0.99"
    assert str(FidelityTarget(0.99, 0.9)) == "cosine 0.99 and agreement 0.9"
