from __future__ import annotations

import pytest

from lavis_dynrefer.synthetic.draws import Draws


def test_the_stream_is_the_same_on_every_machine():
    # PCG64 of SeedSequence((1, 2, 3)), top 53 bits; recorded with numpy 1.26
    draws = Draws(1, 2, 3)
    assert [round(draws.uniform(0, 1), 12) for _ in range(3)] == GOLDEN_UNIFORM


def test_another_key_gives_another_stream():
    assert Draws(1, 2).uniform(0, 1) != Draws(2, 1).uniform(0, 1)


def test_integers_reach_both_ends_and_stay_inside():
    draws = Draws(0)
    assert {draws.integer(3, 5) for _ in range(200)} == {3, 4, 5}


def test_names_are_drawn_in_proportion_to_their_weights():
    draws = Draws(0)
    drawn = [draws.weighted({"often": 3.0, "never": 0.0, "seldom": 1.0}) for _ in range(2000)]
    assert "never" not in drawn
    assert drawn.count("often") / 2000 == pytest.approx(0.75, abs=0.04)  # 4 standard errors


def test_a_field_has_the_requested_shape():
    field = Draws(0).field(3, 5)
    assert field.shape == (3, 5)
    assert 0 <= field.min() <= field.max() < 1


GOLDEN_UNIFORM = [0.670472262652, 0.111014636669, 0.511509082395]
