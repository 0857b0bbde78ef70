from __future__ import annotations

import pickle
import socket
import sys

import pytest

from lavis_dynrefer.vocab import pos
from lavis_dynrefer.vocab.control_words import content_phrases
from lavis_dynrefer.vocab.pos import build_pos_tagger, is_content, is_noun, is_number


@pytest.fixture
def fresh():
    """No tagger is loaded yet."""
    for load in (pos._load_textblob, pos._load_hanta):
        load.cache_clear()


@pytest.mark.parametrize(
    ("name", "noun", "content", "number"),
    [
        ("NN", True, True, False),
        ("NNS", True, True, False),
        ("NN2", True, True, False),
        ("NP0", True, True, False),
        ("JJ", False, True, False),
        ("AJ0", False, True, False),
        ("CD", False, False, True),
        ("CRD", False, False, True),
        ("VBG", False, False, False),
        ("VVG", False, False, False),
        ("PRP", False, False, False),
        ("IN", False, False, False),
    ],
)
def test_names_of_both_tag_sets_are_understood(name, noun, content, number):
    found = (is_noun("word", name), is_content("word", name), is_number("word", name))

    assert found == (noun, content, number)


@pytest.mark.parametrize("token", ["\u2014", "\U0001f436", "90\u00b0"])
def test_a_sign_is_no_noun(token):
    assert not is_noun(token, "NN")


def test_an_unknown_tagger_is_refused():
    with pytest.raises(
        ValueError, match=r"'spacey' is unknown; choose from \['textblob', 'hanta'\]"
    ):
        build_pos_tagger("spacey")


@pytest.mark.parametrize(
    ("name", "module", "cure"),
    [
        ("textblob", "textblob.en.taggers", "pip install textblob"),
        ("hanta", "HanTa.HanoverTagger", "pip install HanTa"),
    ],
)
def test_a_missing_package_is_named_with_its_cure(monkeypatch, fresh, name, module, cure):
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(ImportError, match=cure):
        build_pos_tagger(name)


@pytest.mark.parametrize(
    ("name", "module", "phrases"),
    [
        ("textblob", "textblob", ["red bus", "bus", "street"]),
        ("hanta", "HanTa", ["red bus", "bus", "street"]),
    ],
)
def test_noun_phrases_of_a_caption(name, module, phrases):
    pytest.importorskip(module)
    tagger = pickle.loads(pickle.dumps(build_pos_tagger(name)))

    assert content_phrases(tagger("a red bus is parked on the street")) == phrases


def test_the_default_tagger_needs_no_nltk_data_and_no_network(monkeypatch, fresh, tmp_path):
    pytest.importorskip("textblob")
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    monkeypatch.setattr(socket, "socket", None)

    found = build_pos_tagger("textblob")("a red bus")

    assert list(found) == [("a", "DT"), ("red", "JJ"), ("bus", "NN")]
