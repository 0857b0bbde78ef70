"""Odd captions, raw and cleaned as training captions are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lavis_dynrefer.datasets.sources.visual_genome import clean_caption
from lavis_dynrefer.vocab import Tagger

TAGS = ["dog", "man", "t-shirt", "cafe", "crepe", "sign", "stop", "angle", "walk", "fire hydrant"]
TAGS += ["table", "eclair", "close-up", "rubik's cube", "wood-burning stove", "tv", "up"]

# index in tricky/captions.json -> tags of the cleaned caption
TRICKY = {
    0: (),
    1: (),
    2: (),
    3: (),
    4: ("cafe", "crepe"),
    5: ("angle", "stop", "sign"),
    6: ("man", "t-shirt"),
    7: (),
    8: ("walk",),
    9: (),
    10: ("dog",),
    11: (),
    12: ("dog",),
    13: ("stop", "sign"),
    14: ("man",),
    15: ("fire hydrant",),
    16: ("table",),
    17: ("eclair",),
    18: ("dog",),
    19: (),
}


@pytest.fixture(scope="module")
def tricky():
    path = Path(__file__).parents[1] / "fixtures/tricky_captions.json"
    return json.loads(path.read_text(encoding="utf-8"))["captions"]


@pytest.fixture(scope="module")
def tagger():
    return Tagger(TAGS)


def test_every_tricky_caption_has_its_answer(tricky):
    assert list(TRICKY) == list(range(len(tricky)))


@pytest.mark.parametrize("row", TRICKY)
def test_tags_of_a_tricky_caption(tricky, tagger, row):
    assert tagger(clean_caption(tricky[row])) == TRICKY[row]


@pytest.mark.parametrize("row", sorted(set(TRICKY) - {8}))
def test_cleaning_loses_no_tag_of_a_tricky_caption(tricky, tagger, row):
    assert set(tagger(tricky[row])) == set(TRICKY[row])


@pytest.mark.parametrize(
    ("caption", "tags"),
    [
        ("a t-shirt", ("t-shirt",)),
        ("a tshirt", ("t-shirt",)),
        ("T-Shirts", ("t-shirt",)),
        ("a rubik's cube", ("rubik's cube",)),
        ("a rubik\u2019s cube", ("rubik's cube",)),
        ("a close-up of a man", ("close-up", "man")),
        ("a wood-burning stove", ("wood-burning stove",)),
        ("the man's dog", ("man", "dog")),
        ("the dogs' table", ("dog", "table")),
        ("men\n", ("man",)),
        ("  dog  ", ("dog",)),
        ("DOG", ("dog",)),
        ("whitre dgo bckground", ()),
        ("wooden\u00a0table", ("table",)),
        ("\ufeffdog", ("dog",)),
        ("\ufb01re hydrants", ("fire hydrant",)),
        ("cafe\u0301", ("cafe",)),
        ("90\u00b0 sign", ("sign",)),
        ("TV.", ("tv",)),
        ("dog " * 30, ("dog",)),
    ],
)
@pytest.mark.parametrize("clean", [str, clean_caption], ids=["raw", "cleaned"])
def test_tags_survive_the_cleaning_of_a_caption(tagger, caption, tags, clean):
    assert tagger(clean(caption)) == tags


@pytest.mark.parametrize(
    ("caption", "raw", "cleaned"),
    [
        # Deleted punctuation joins words, as it does in the released data.
        ("stop/walk sign", ("stop", "walk", "sign"), ("sign",)),
        ("man\u2014dog", ("man", "dog"), ()),
    ],
)
def test_words_that_cleaning_joins_are_lost(tagger, caption, raw, cleaned):
    assert tagger(caption) == raw
    assert tagger(clean_caption(caption)) == cleaned
