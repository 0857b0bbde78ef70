from __future__ import annotations

import random

import pytest

from lavis_dynrefer.config import ControlSettings
from lavis_dynrefer.vocab.control_words import (
    ControlSampler,
    content_phrases,
    control_prompt,
    sample_control_words,
    training_words,
)


def test_prompt_joins_by_commas_and_ends_with_a_bar():
    assert control_prompt(["red dog", "bench"]) == "red dog,bench|"


def test_no_words_give_the_bar_alone():
    assert control_prompt([]) == "|"


def test_phrases_extend_by_the_nouns_that_follow():
    tokens = [("old", "JJ"), ("dogs", "NNS"), ("in", "IN"), ("a", "DT"), ("bus", "NN")]

    assert content_phrases(tokens) == ["old dogs", "dogs", "bus"]


def test_an_adjective_is_not_extended_by_another():
    tokens = [("old", "JJ"), ("red", "JJ"), ("bus", "NN")]

    assert content_phrases(tokens) == ["old", "red bus", "bus"]


def test_without_a_pos_tagger_only_tags_are_used():
    assert training_words("a red dog", ["dog"]) == ["dog"]


def test_tags_and_phrases_are_joined_once():
    words = training_words("dog", ["dog", "pet"], lambda caption: [(caption, "NN")])

    assert words == ["dog", "pet"]


def test_a_repeated_word_keeps_its_own_followers():
    # the released code looks a word up by its first occurrence and would give "dog" twice
    tokens = [("dog", "NN"), ("and", "CC"), ("dog", "NN"), ("house", "NN")]

    assert content_phrases(tokens) == ["dog", "dog house", "house"]


def test_a_caption_without_content_words_adds_nothing():
    # the released code adds an empty word, a stray comma in the prompt
    assert content_phrases([("is", "VBZ"), ("very", "RB")]) == []


def test_dropping_is_governed_by_the_generator():
    words = [str(number) for number in range(20)]

    first, again = (sample_control_words(words, rng=random.Random(3)) for _ in "ab")

    assert first == again
    assert set(first) < set(words)


def test_nothing_dropped_is_everything_in_another_order():
    words = [str(number) for number in range(20)]

    kept = sample_control_words(words, rng=random.Random(0), drop=0)

    assert sorted(kept) == sorted(words)
    assert kept != words


def test_half_of_the_captions_get_no_words_and_the_others_half_of_them():
    rng = random.Random(0)
    prompts = [ControlSampler().prompt("", "abcdefgh", rng) for _ in range(4000)]

    empty = prompts.count("|") / len(prompts)
    kept = sum(char.isalpha() for prompt in prompts for char in prompt) / len(prompts) / 8

    # 3 standard errors of a share of one half over 4000 draws are 0.024
    assert empty == pytest.approx(0.5, abs=0.03)
    assert kept == pytest.approx(0.25, abs=0.03)


def sampler(**changes):
    """A sampler that drops nothing."""
    return ControlSampler.from_settings(
        ControlSettings(control_drop_all=0.0, control_drop=0.0, **changes)
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ["boat", "house", "old boat", "red house"]),
        ({"control_pos": None}, ["boat", "house"]),
    ],
)
def test_tags_and_noun_phrases_of_a_caption_are_control_words(options, words):
    if options == {}:
        pytest.importorskip("textblob")

    prompt = sampler(**options).prompt(
        "a red house by the old boat", ["house", "boat"], random.Random(0)
    )

    assert sorted(prompt.rstrip("|").split(",")) == words
