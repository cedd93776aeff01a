"""The measure of distance from the reference, and that it can fail."""

from __future__ import annotations

import json

import numpy as np
import pytest

from align_runtime.errors import ParityError
from align_runtime.parity import Limits, Parity, compare

LIMITS = Limits(max_abs=1e-3, min_cosine=0.999, min_centred_cosine=0.999)


def rows(count: int = 4, dim: int = 8) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal((count, dim))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


LABELS = ["a", "b", "c", "d"]


def test_equal_rows_are_at_no_distance() -> None:
    parity = compare(rows(), rows(), LABELS)
    assert parity.max_abs == 0
    assert parity.min_cosine == pytest.approx(1, abs=1e-15)
    assert parity.min_centred_cosine == pytest.approx(1, abs=1e-15)
    parity.check("graph", LIMITS)


def test_names_the_worst_row_and_fails() -> None:
    actual = rows()
    actual[2, 5] += 0.25
    parity = compare(actual, rows(), LABELS)
    assert parity.worst == {"max_abs": "c", "min_cosine": "c", "min_centred_cosine": "c"}
    assert parity.max_abs == pytest.approx(0.25, abs=1e-6)
    with pytest.raises(ParityError) as caught:
        parity.check("graph", LIMITS)
    error = caught.value
    assert (error.subject, error.metric, error.sample, error.limit) == ("graph", "max_abs", "c", 1e-3)
    assert error.observed == parity.max_abs


def test_cosine_alone_can_fail() -> None:
    actual = rows()
    actual[1] = -actual[1]
    with pytest.raises(ParityError) as caught:
        compare(actual, rows(), LABELS).check("graph", Limits(max_abs=10, min_cosine=0.5, min_centred_cosine=-2))
    assert (caught.value.metric, caught.value.limit) == ("min_cosine", 0.5)
    assert caught.value.observed == pytest.approx(-1)


def test_not_a_number_is_never_within_the_limits() -> None:
    actual = rows()
    actual[3, 0] = np.nan
    parity = compare(actual, rows(), LABELS)
    assert set(parity.worst.values()) == {"d"}
    with pytest.raises(ParityError) as caught:
        parity.check("graph", Limits(max_abs=np.inf, min_cosine=-2, min_centred_cosine=-2))
    assert np.isnan(caught.value.observed)


@pytest.mark.parametrize("metric", ["max_abs", "min_cosine", "min_centred_cosine"])
def test_the_sample_is_the_worst_of_the_metric_that_failed(metric: str) -> None:
    """Four rows that share a large part: a is furthest in one component, b has the lowest cosine, c the lowest one
    without the shared part."""
    common, parts = 10 * np.eye(6)[0], np.array([[0, 0, 4, 0, 0, 0], [0, 0, -4, 0, 0, 0], [0, 0.1, 0, 0, 0, 0]])
    expected = np.concatenate([common + parts, [common - parts.sum(axis=0)]])
    actual = expected.copy()
    actual[0] *= 2  # far, and in the same direction
    actual[1] += (0, 0, 0, 4, 0, 0)  # no difference as large as that of the first row
    actual[2, 1] = -0.1
    limits = {"max_abs": 99.0, "min_cosine": -1.0, "min_centred_cosine": -1.0}
    limits[metric] = 0.0 if metric == "max_abs" else 0.99
    with pytest.raises(ParityError) as caught:
        compare(actual, expected, LABELS).check("graph", Limits(**limits))
    worst = {"max_abs": "a", "min_cosine": "b", "min_centred_cosine": "c"}
    assert (caught.value.metric, caught.value.sample) == (metric, worst[metric])


def test_rows_without_any_difference_between_them_do_not_pass() -> None:
    """Where all rows of the reference are equal, nothing is left of them after centring: the cosine is not a number."""
    same = np.repeat(rows(1), 4, axis=0)
    parity = compare(same, same, LABELS)
    assert np.isnan(parity.min_centred_cosine)
    with pytest.raises(ParityError) as caught:
        parity.check("graph", Limits(max_abs=np.inf, min_cosine=-2, min_centred_cosine=-2))
    assert caught.value.metric == "min_centred_cosine"


def test_centring_shows_what_a_common_part_hides() -> None:
    common = np.zeros((4, 8))
    common[:, 0] = 100
    difference = rows().astype(np.float64) * 1e-2
    actual, expected = common + difference[[1, 0, 3, 2]], common + difference
    parity = compare(actual, expected, LABELS)
    assert parity.min_cosine > 0.99999
    assert parity.min_centred_cosine < 0.9


def test_a_centred_cosine_has_a_limit_of_its_own() -> None:
    common = np.full((4, 8), 8**-0.5)
    difference = rows().astype(np.float64) * 1e-4
    parity = compare(common + difference[[1, 0, 3, 2]], common + difference, LABELS)
    with pytest.raises(ParityError) as caught:
        parity.check("graph", LIMITS)
    assert (caught.value.metric, caught.value.limit) == ("min_centred_cosine", 0.999)
    few = compare((common + difference)[:2], (common + difference)[[1, 0]], LABELS[:2])
    assert np.isnan(few.min_centred_cosine)
    few.check("graph", LIMITS)  # two rows have no centre to speak of


def test_round_trip_through_json() -> None:
    for parity in (compare(rows(), rows(), LABELS), compare(rows(1), rows(1), ["only"])):
        json.dumps(parity.to_json(), allow_nan=False)
        again = Parity.from_json(parity.to_json(), "here")
        assert again.to_json() == parity.to_json()


@pytest.mark.parametrize(
    ("actual", "expected", "labels"),
    [(rows(3), rows(4), LABELS), (rows(4), rows(4), ["a"]), (rows(0), rows(0), []), (rows()[0], rows()[0], LABELS)],
)
def test_shapes_must_agree(actual: np.ndarray, expected: np.ndarray, labels: list[str]) -> None:
    with pytest.raises(ValueError, match="cannot compare"):
        compare(actual, expected, labels)


def test_samples_with_several_rows_may_count_once_in_the_mean() -> None:
    expected = np.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
    actual = expected + 0.01
    once = compare(actual, expected, ["a", "b", "c"])
    several = [0, 1, 2, 0, 0, 0]
    found = compare(actual[several], expected[several], list("abcaaa"), expected)
    assert compare(actual[several], expected[several], list("abcaaa")).min_centred_cosine != found.min_centred_cosine
    assert found.min_centred_cosine == pytest.approx(once.min_centred_cosine, abs=1e-12)
    assert found.rows == 6
