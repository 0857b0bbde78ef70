from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from lavis_dynrefer.vocab.control_words import content_phrases
from lavis_dynrefer.vocab.pos import build_pos_tagger, is_content, is_noun, is_number


@pytest.mark.parametrize(
    ("pos", "noun", "content", "number"),
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
def test_names_of_both_tag_sets_are_understood(pos, noun, content, number):
    found = (is_noun("word", pos), is_content("word", pos), is_number("word", pos))

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
def test_a_missing_package_is_named_with_its_cure(name, module, cure):
    # A fresh interpreter: what an earlier test has loaded stays loaded in this one.
    code = (
        "import sys\n"
        f"sys.modules[{module!r}] = None\n"
        "from lavis_dynrefer.vocab.pos import build_pos_tagger\n"
        f"build_pos_tagger({name!r})\n"
    )

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert run.returncode == 1
    assert cure in run.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "module", "phrases"),
    [
        ("textblob", "textblob", ["red bus", "bus", "street"]),
        ("hanta", "HanTa", ["red bus", "bus", "street"]),
    ],
)
def test_noun_phrases_of_a_caption(name, module, phrases):
    pytest.importorskip(module)
    pos = pickle.loads(pickle.dumps(build_pos_tagger(name)))

    assert content_phrases(pos("a red bus is parked on the street")) == phrases


def test_the_default_tagger_needs_no_nltk_data_and_no_network(tmp_path):
    pytest.importorskip("textblob")
    code = (
        "import socket\n"
        "def refuse(*_):\n"
        "    raise OSError('no network here')\n"
        "socket.socket.connect = refuse\n"
        "import nltk\n"
        f"nltk.data.path[:] = [{str(tmp_path)!r}]\n"
        "from lavis_dynrefer.vocab.pos import build_pos_tagger\n"
        "print(build_pos_tagger('textblob')('a red bus'))\n"
    )

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert run.stdout.strip() == "[('a', 'DT'), ('red', 'JJ'), ('bus', 'NN')]", run.stderr
