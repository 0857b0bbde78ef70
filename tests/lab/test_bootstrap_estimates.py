"""Numbers with confidence intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lavis_dynrefer.lab.bootstrap_estimates import Statistic, bootstrap, percentage


def test_a_share_skips_ungraded_values():
    found = bootstrap([percentage([True, None, False, True])], [1, 1, 2, 3])
    assert found.value == pytest.approx(200 / 3)
    assert found.count == 3


def test_the_interval_contains_the_value_and_shrinks_with_more_images():
    few = bootstrap([percentage([True, False] * 20)], range(40))
    many = bootstrap([percentage([True, False] * 200)], range(400))
    assert few.low < few.value < few.high
    assert many.high - many.low < few.high - few.low


def test_regions_of_one_image_are_resampled_together():
    both = Statistic(np.ones(2, dtype=bool), lambda rows: 100.0 * (len(set(rows % 2)) == 2))
    whole = bootstrap([both], [5, 5])
    assert (whole.low, whole.high) == (100.0, 100.0)


def test_models_are_averaged_and_resampled():
    # All regions of a model are alike, so only the choice of models spreads.
    found = bootstrap([percentage([True] * 6), percentage([False] * 6)], range(6))
    assert (found.value, found.low, found.high) == (50.0, 0.0, 100.0)


def test_the_same_seed_gives_the_same_interval():
    values = list(np.arange(30) % 3 == 0)
    assert bootstrap([percentage(values)], range(30)) == bootstrap([percentage(values)], range(30))


def test_the_value_is_nan_if_nothing_is_graded():
    empty = bootstrap([percentage([None])], [1])
    assert math.isnan(empty.value)
    assert empty.count == 0
