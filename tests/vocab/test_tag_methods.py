from __future__ import annotations

import pickle
import re
import sys

import pytest

from lavis_dynrefer.vocab import pos, scene_graph
from lavis_dynrefer.vocab.tag_methods import TAG_METHODS, ContentTagger, build_tagger
from lavis_dynrefer.vocab.tagger import Tagger

MODULES = {"match": "re", "match+pos": "HanTa", "scene_graph": "sng_parser"}


def parts_of_speech(caption):
    names = {"sitting": "VBG", "walk": "VB", "five": "CD"}
    return [(word, names.get(word.lower(), "NN")) for word in caption.split()]


def test_the_default_method_is_the_plain_match():
    assert TAG_METHODS[0] == "match"
    assert isinstance(build_tagger("match", ["dog"]), Tagger)


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match=r"'spacy' is unknown; choose from \['match'"):
        build_tagger("spacy", ["dog"])


@pytest.mark.parametrize("method", TAG_METHODS)
@pytest.mark.parametrize("tags", [[], ["dog", "Dog"]])
def test_every_method_refuses_an_unusable_list(method, tags):
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


@pytest.mark.parametrize(
    ("method", "module", "cure"),
    [
        ("match+pos", "HanTa.HanoverTagger", "pip install HanTa"),
        ("scene_graph", "sng_parser", "pip install 'lavis_dynrefer[scene-graph]'"),
    ],
)
def test_a_missing_extra_is_named_with_its_cure(monkeypatch, method, module, cure):
    pos._load_hanta.cache_clear()
    scene_graph._load_parser.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(ImportError, match=re.escape(cure)):
        build_tagger(method, ["dog"])


@pytest.mark.parametrize(
    ("caption", "tags"),
    [
        ("man sitting", ("man",)),
        ("Sitting man", ("man",)),
        ("MAN sitting", ("man",)),
        ("a walk sign", ("walk sign", "sign")),  # the first word of a phrase may be a verb
        ("walk along", ()),
        ("five men", ("five", "man")),
        ("", ()),
    ],
)
def test_single_words_count_only_as_nouns_adjectives_and_numbers(caption, tags):
    tagger = ContentTagger(["man", "sitting", "walk", "sign", "walk sign", "five"], parts_of_speech)

    assert tagger(caption) == tags


def test_a_scene_graph_names_heads_phrases_and_modifiers_but_no_first_words():
    pytest.importorskip("sng_parser")
    tagger = build_tagger("scene_graph", ["baseball", "baseball bat", "bat", "wooden", "man", "a"])

    found = tagger("a man with wooden baseball bats")

    assert sorted(found) == ["baseball bat", "bat", "man", "wooden"]


def test_a_scene_graph_has_no_adjective_outside_a_noun_phrase():
    pytest.importorskip("sng_parser")

    assert build_tagger("scene_graph", ["clock", "green"])("the clock is green") == ("clock",)
