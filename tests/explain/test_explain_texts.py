"""How numbers and names are written on the page of explanations."""

from __future__ import annotations

import math

import pytest

from lavis_dynrefer.explain.explain_page import attribute, number, times


@pytest.mark.parametrize(
    ("value", "sign", "text"),
    [
        (0.256, False, "0.26"),
        (0.256, True, "+0.26"),
        (-0.5, True, "\u22120.50"),
        (-1e-4, True, "0.00"),
    ],
)
def test_numbers_have_two_digits_and_a_true_minus(value, sign, text):
    assert number(value, sign=sign) == text


@pytest.mark.parametrize(
    ("gain", "text"),
    [(math.log(2), "2.0"), (-math.log(4), "0.25"), (6.6, "735"), (99, "485,165,195")],
)
def test_gains_are_factors(gain, text):
    assert times(gain) == text


@pytest.mark.parametrize(
    ("name", "parts"),
    [("wet", ("", "wet")), ("clothes color:red/crimson", ("clothes color", "red"))],
)
def test_attributes_have_a_type_and_a_word(name, parts):
    assert attribute(name) == parts
