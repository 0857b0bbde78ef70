from __future__ import annotations

import pickle
import re
import sys

import pytest

from lavis_dynrefer.vocab import TAG_METHODS, Tagger, build_tagger, caption_taggers

MODULES = {"match": "re", "scene_graph": "sng_parser"}


@pytest.mark.parametrize(
    ("tags", "caption", "expected"),
    [
        (["dog"], "A dog.", ("dog",)),
        (["dog"], "two dogs playing", ("dog",)),
        (["Dog"], "a DOG", ("Dog",)),
        (["bus"], "a bus and buses", ("bus",)),
        (["bu", "bus"], "a bus", ("bus",)),
        (["glas"], "a glass", ()),
        (["pant", "pants"], "red pants", ("pants",)),
        (["berry"], "ripe berries", ("berry",)),
        (["cookie"], "two cookies", ("cookie",)),
        (["knife", "calf"], "knives near calves", ("knife", "calf")),
        (["person"], "people walking", ("person",)),
        (["man"], "the man's hat", ("man",)),
        (["t-shirt"], "a red t-shirt", ("t-shirt",)),
        (["t-shirt"], "a red tshirt", ("t-shirt",)),
        (["rubik's cube"], "a rubiks cube", ("rubik's cube",)),
        (["television"], "a tv on the wall", ("television",)),
        (["tv", "television"], "a tv on the wall", ("tv",)),
        (["mobile phone"], "black cell phones", ("mobile phone",)),
        (["dog"], "", ()),
        (["dog"], "?!", ()),
        (["dog"], "狗", ()),
    ],
)
def test_tagger_finds_the_tags_a_caption_mentions(tags, caption, expected):
    assert Tagger(tags)(caption) == expected


def test_longest_match_wins_and_only_its_head_counts_alone():
    tagger = Tagger(["baseball", "baseball bat", "bat"])

    assert tagger("a wooden baseball bat") == ("baseball bat", "bat")


def test_the_longer_of_two_phrases_is_found():
    tagger = Tagger(["wedding cake", "wedding cake stand"])

    assert tagger("a wedding cake stand") == ("wedding cake stand",)


def test_tags_of_four_words_are_found():
    tagger = Tagger(["black and white photo", "photo"])

    assert tagger("old black and white photos") == ("black and white photo", "photo")


def test_phrases_do_not_overlap():
    tagger = Tagger(["fire hydrant", "hydrant cap"])

    assert tagger("fire hydrant cap") == ("fire hydrant",)


def test_each_tag_is_returned_once_in_order_of_mention():
    assert Tagger(["cat", "dog"])("dog, cat, dogs") == ("dog", "cat")


def test_synonyms_never_invent_a_tag():
    assert Tagger(["dog"])("a tv on a couch") == ()


@pytest.mark.parametrize(
    ("tags", "caption", "expected"),
    [
        (["plan", "plane"], "two planes", ("plane",)),
        (["tub", "tube"], "paint tubes", ("tube",)),
        (["cafe", "cave"], "dark caves", ("cave",)),
        (["cafe"], "a caf\u00e9 table", ("cafe",)),
        (["caf\u00e9"], "a cafe table", ("caf\u00e9",)),
        (["red", "white"], "a red-and-white flag", ("red", "white")),
        (["hot dog"], "a hot-dog stand", ("hot dog",)),
        (["close-up"], "close-ups of a dog", ("close-up",)),
        (["close-up", "up"], "a closeup", ("close-up",)),
        (["wood-burning stove", "stove"], "a wood-burning stove", ("wood-burning stove", "stove")),
    ],
)
def test_spelling_variants_find_the_same_tag(tags, caption, expected):
    assert Tagger(tags)(caption) == expected


def test_a_caption_may_end_within_a_phrase():
    assert Tagger(["black and white photo"])("black and white") == ()


def test_the_default_method_is_the_plain_match():
    assert TAG_METHODS[0] == "match"
    assert isinstance(build_tagger("match", ["dog"]), Tagger)


def test_rejects_an_unknown_method():
    with pytest.raises(ValueError, match="tag method: unknown 'spacy'; expected one of"):
        build_tagger("spacy", ["dog"])


@pytest.mark.parametrize("method", TAG_METHODS)
@pytest.mark.parametrize("tags", [[], ["dog", "Dog"]])
def test_every_method_rejects_an_invalid_tag_list(method, tags):
    pytest.importorskip(MODULES[method])

    with pytest.raises(ValueError, match="tag list"):
        build_tagger(method, tags)


@pytest.mark.parametrize("method", TAG_METHODS)
def test_every_method_can_be_sent_to_another_process(method):
    pytest.importorskip(MODULES[method])

    tagger = pickle.loads(pickle.dumps(build_tagger(method, ["Dog", "red", "house", "cat"])))

    assert sorted(tagger("a red dog near the house")) == ["Dog", "house", "red"]
    assert tagger.tags == ("Dog", "red", "house", "cat")


@pytest.mark.parametrize("method", TAG_METHODS)
@pytest.mark.parametrize("caption", ["", "   ", ".", "!!!", "\U0001f436", "\u65e5\u672c\u8a9e"])
def test_a_caption_without_words_has_no_tags(method, caption):
    pytest.importorskip(MODULES[method])

    assert build_tagger(method, ["dog"])(caption) == ()


def test_a_missing_extra_is_named_with_its_cure(monkeypatch):
    caption_taggers._load_parser.cache_clear()
    monkeypatch.setitem(sys.modules, "sng_parser", None)

    with pytest.raises(ImportError, match=re.escape("pip install 'lavis_dynrefer[scene-graph]'")):
        build_tagger("scene_graph", ["dog"])


def test_a_scene_graph_names_heads_phrases_and_modifiers_but_no_first_words():
    pytest.importorskip("sng_parser")
    tagger = build_tagger("scene_graph", ["baseball", "baseball bat", "bat", "wooden", "man", "a"])

    found = tagger("a man with wooden baseball bats")

    assert sorted(found) == ["baseball bat", "bat", "man", "wooden"]


def test_a_scene_graph_misses_adjectives_outside_noun_phrases():
    pytest.importorskip("sng_parser")

    assert build_tagger("scene_graph", ["clock", "green"])("the clock is green") == ("clock",)
