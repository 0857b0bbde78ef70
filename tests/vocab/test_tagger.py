from __future__ import annotations

import pytest

from lavis_dynrefer.vocab.tagger import Tagger, build_vocabulary


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


def test_vocabulary_is_the_frequent_words_without_stop_words():
    captions = ["the red dog", "red dogs", "the dog", "a red cat", "3 3 3 dogs"]

    found = build_vocabulary(captions, ["the", "a"], min_count=2)

    assert found == ["dog", "red"]


def test_vocabulary_size_is_a_limit():
    assert build_vocabulary(["b b a a c"], [], size=2, min_count=1) == []
    assert build_vocabulary(["bb bb aa aa cc"], [], size=2, min_count=1) == ["aa", "bb"]
