"""Which control words the captioner is trained with when the batch brings none."""

from __future__ import annotations

from dataclasses import replace

import pytest

CAPTION, TAGS = "a red house by the old boat", ["house", "boat"]


def controls(model, **changes):
    """The control words of one caption when none is dropped, sorted."""
    model.caption_config = replace(
        model.caption_config, control_drop_all=0.0, control_drop=0.0, **changes
    )
    (prompt,) = model._sample_controls([CAPTION], [TAGS])
    return sorted(prompt.rstrip("|").split(","))


def test_tags_and_noun_phrases_are_control_words_by_default(smallest_model):
    pytest.importorskip("textblob")

    assert controls(smallest_model) == ["boat", "house", "old boat", "red house"]


def test_a_better_tagger_can_be_named(smallest_model):
    pytest.importorskip("HanTa")

    found = controls(smallest_model, control_pos="hanta")

    assert found == ["boat", "house", "old boat", "red house"]


def test_without_a_tagger_only_tags_are_control_words(smallest_model):
    assert controls(smallest_model, control_pos=None) == ["boat", "house"]


def test_an_unknown_tagger_is_refused(smallest_model):
    with pytest.raises(ValueError, match="'nltk' is unknown"):
        controls(smallest_model, control_pos="nltk")
