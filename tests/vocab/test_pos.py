from __future__ import annotations

import pickle
import socket
import sys

import pytest

from lavis_dynrefer.vocab import build_pos_tagger, pos
from lavis_dynrefer.vocab.pos import is_content, is_noun


@pytest.mark.parametrize(
    ("name", "noun", "content"),
    [
        ("NN", True, True),
        ("NNS", True, True),
        ("NNP", True, True),
        ("JJ", False, True),
        ("JJR", False, True),
        ("CD", False, False),
        ("VBG", False, False),
        ("IN", False, False),
    ],
)
def test_nouns_and_adjectives_are_content(name, noun, content):
    assert (is_noun("word", name), is_content("word", name)) == (noun, content)


@pytest.mark.parametrize("token", ["\u2014", "\U0001f436", "90\u00b0"])
def test_a_sign_is_not_a_noun(token):
    assert not is_noun(token, "NN")


def test_rejects_an_unknown_tagger():
    with pytest.raises(ValueError, match="'spacey' is unknown; choose 'textblob'"):
        build_pos_tagger("spacey")


def test_a_missing_package_is_named_with_its_cure(monkeypatch):
    pos._load_textblob.cache_clear()
    monkeypatch.setitem(sys.modules, "textblob.en.taggers", None)

    with pytest.raises(ImportError, match="pip install textblob"):
        build_pos_tagger("textblob")


def test_textblob_needs_no_nltk_data_and_no_network(monkeypatch, tmp_path):
    pytest.importorskip("textblob")
    nltk = pytest.importorskip("nltk")
    pos._load_textblob.cache_clear()
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    monkeypatch.setattr(socket, "getaddrinfo", None)  # servers of other tests need sockets

    tagger = pickle.loads(pickle.dumps(build_pos_tagger("textblob")))

    assert list(tagger("a red bus")) == [("a", "DT"), ("red", "JJ"), ("bus", "NN")]
