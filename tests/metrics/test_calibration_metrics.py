"""Reliability, expected calibration error and thresholds, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.metrics.calibration_metrics import (
    ReliabilityBin,
    at_threshold,
    error_of_curve,
    expected_calibration_error,
    reliability_curve,
    threshold_metrics,
)

# Two bins, [0, .5) and [.5, 1]: means .2 and .8, shares 1/4 and 1/2.
PROBABILITIES = [0.1, 0.1, 0.3, 0.3, 0.7, 0.9]
RIGHT = [0, 0, 1, 0, 1, 0]


def test_curve_of_two_equally_wide_bins():
    low, high = reliability_curve(PROBABILITIES, RIGHT, bins=2)

    assert low == pytest.approx((0.2, 0.25, 4))
    assert high == pytest.approx((0.8, 0.5, 2))


def test_error_weights_bins_by_their_answers():
    # 4/6 * |.2 - .25| + 2/6 * |.8 - .5|
    assert expected_calibration_error(PROBABILITIES, RIGHT, bins=2) == pytest.approx(0.8 / 6)


def test_bins_of_equal_mass_share_the_answers_evenly():
    curve = reliability_curve(PROBABILITIES, RIGHT, bins=3, equal_mass=True)

    assert [one.answers for one in curve] == [2, 2, 2]
    assert [one.probability for one in curve] == pytest.approx([0.1, 0.3, 0.8])
    assert [one.share for one in curve] == [0, 0.5, 0.5]
    # (|.1 - 0| + |.3 - .5| + |.8 - .5|) / 3
    error = expected_calibration_error(PROBABILITIES, RIGHT, bins=3, equal_mass=True)
    assert error == pytest.approx(0.2)


def test_a_probability_of_one_is_in_the_last_bin():
    assert reliability_curve([1.0], [1], bins=10) == [ReliabilityBin(1.0, 1.0, 1)]


def test_bins_without_answers_are_left_out():
    assert len(reliability_curve([0.05, 0.95], [0, 1], bins=10)) == 2
    assert len(reliability_curve([0.5], [1], bins=10, equal_mass=True)) == 1


def test_answers_with_the_probability_of_the_threshold_count_as_yes():
    found = at_threshold([0.5, 0.49, 0.8], [1, 1, 0])

    assert found == (0.5, 0.5)


def test_precision_and_recall_without_a_yes_or_a_right_answer():
    assert math.isnan(at_threshold([0.2], [1]).precision)
    assert math.isnan(at_threshold([0.7], [0]).recall)
    assert set(threshold_metrics([0.2], [1])) == {"recall_likely", "calibration_error"}


def test_metrics_are_in_percent():
    assert threshold_metrics([1.0, 1.0], [1, 0]) == {
        "precision_likely": 50.0,
        "recall_likely": 100.0,
        "calibration_error": 50.0,
    }


@pytest.mark.parametrize(
    ("probabilities", "right"), [([], []), ([0.5], [1, 0]), ([1.2], [1]), ([math.nan], [1])]
)
def test_what_is_no_probability_is_refused(probabilities, right):
    with pytest.raises(InputError, match="expected"):
        expected_calibration_error(probabilities, right)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60), st.booleans())
def test_error_lies_between_zero_and_one_and_is_that_of_the_curve(pairs, equal_mass):
    probabilities, right = zip(*pairs)
    curve = reliability_curve(probabilities, right, equal_mass=equal_mass)
    error = expected_calibration_error(probabilities, right, equal_mass=equal_mass)

    assert sum(one.answers for one in curve) == len(pairs)
    assert error == error_of_curve(curve)
    assert -1e-12 <= error <= 1 + 1e-12


def test_probabilities_that_are_right_have_a_small_error():
    rng = np.random.default_rng(0)
    probabilities = rng.random(20_000)
    right = rng.random(20_000) < probabilities

    assert expected_calibration_error(probabilities, right) < 0.02
    assert expected_calibration_error(probabilities**2, right) > 0.1
