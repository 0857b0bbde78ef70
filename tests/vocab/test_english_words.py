from __future__ import annotations

import pytest

from lavis_dynrefer.vocab.english_words import split_words, word_forms


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \n", []),
        (".", []),
        ("!!!", []),
        ("\U0001f436 dog", ["dog"]),
        ("two\tmen", ["two", "men"]),
        ("A Red DOG\n", ["a", "red", "dog"]),
        ("wooden\u00a0table", ["wooden", "table"]),
        ("\ufeffdog", ["dog"]),
        ("\ufb01re hydrant", ["fire", "hydrant"]),
        ("\u00e9clair", ["eclair"]),
        ("e\u0301clair", ["eclair"]),
        ("stop\u2122 sign\u2026", ["stop", "sign"]),
        ("90\u00b0 angle \u2014 \u201cstop\u201d", ["90", "angle", "stop"]),
        ("walk/don't walk", ["walk", "don't", "walk"]),
        ("a man\u2019s t-shirt", ["a", "man's", "t-shirt"]),
        ("'quoted' -- text_here", ["quoted", "text", "here"]),
        ("\u65e5\u672c\u8a9e", ["\u65e5\u672c\u8a9e"]),
        ("\u30d0\u30b9", ["\u30d0\u30b9"]),  # this mark makes another letter, it is not an accent
    ],
)
def test_splits_a_text_into_words(text, words):
    assert split_words(text) == words


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("dogs", "dog"),
        ("buses", "bus"),
        ("berries", "berry"),
        ("cookies", "cookie"),
        ("scarfs", "scarf"),
        ("hooves", "hoof"),
        ("housewives", "housewife"),
        ("knives", "knife"),
        ("women", "woman"),
        ("people", "person"),
        ("man's", "man"),
    ],
)
def test_the_singular_is_among_the_forms(plural, singular):
    assert word_forms(plural)[0] == plural
    assert singular in word_forms(plural)


@pytest.mark.parametrize(
    ("plural", "nearer", "farther"),
    [("planes", "plane", "plan"), ("tubes", "tube", "tub"), ("caves", "cave", "cafe")],
)
def test_the_smallest_change_comes_first(plural, nearer, farther):
    forms = (*word_forms(plural), farther)

    assert forms.index(nearer) < forms.index(farther)


@pytest.mark.parametrize("word", ["glass", "dog", ""])
def test_a_word_without_plural_ending_has_one_form(word):
    assert word_forms(word) == (word,)
