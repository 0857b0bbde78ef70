from __future__ import annotations

import pickle

import pytest

from lavis_dynrefer.vocab.tagger import Tagger


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


def test_of_two_phrases_the_longer_one_is_taken():
    tagger = Tagger(["wedding cake", "wedding cake stand"])

    assert tagger("a wedding cake stand") == ("wedding cake stand",)


def test_tags_of_four_words_are_found():
    tagger = Tagger(["black and white photo", "photo"])

    assert tagger("old black and white photos") == ("black and white photo", "photo")


def test_words_after_a_match_are_matched_afresh():
    tagger = Tagger(["fire hydrant", "hydrant cap"])

    assert tagger("fire hydrant cap") == ("fire hydrant",)


def test_each_tag_is_named_once_in_order_of_mention():
    assert Tagger(["cat", "dog"])("dog, cat, dogs") == ("dog", "cat")


def test_synonyms_never_invent_a_tag():
    assert Tagger(["dog"])("a tv on a couch") == ()


@pytest.mark.parametrize("tags", [[], ["dog", "Dog"]])
def test_unusable_tag_lists_are_refused(tags):
    with pytest.raises(ValueError, match="tag list"):
        Tagger(tags)


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


def test_a_phrase_at_the_end_of_the_caption_is_not_read_beyond():
    assert Tagger(["black and white photo"])("black and white") == ()


def test_mentions_tell_phrases_from_words():
    mentions = Tagger(["hot dog", "dog", "eat"]).mentions("dogs eat hot dogs")

    assert mentions == [("dog", "dogs"), ("eat", "eat"), ("hot dog", None), ("dog", "dogs")]


def test_a_copy_sent_to_another_process_answers_alike():
    tagger = Tagger(["hot dog", "dog", "t-shirt"])

    copy = pickle.loads(pickle.dumps(tagger))

    assert copy("tshirt with hot dogs") == tagger("tshirt with hot dogs") != ()
