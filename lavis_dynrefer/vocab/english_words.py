"""Splitting captions into words, and the possible singular forms of a word."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

_WORD = re.compile(r"[^\W_]+(?:['\-][^\W_]+)*")  # inner hyphens and apostrophes stay: "t-shirt"
_FIRST_ACCENT = 200  # combining class; lower ones make another letter, as in Japanese
_IRREGULAR = {
    "calves": "calf",
    "children": "child",
    "dice": "die",
    "feet": "foot",
    "geese": "goose",
    "halves": "half",
    "knives": "knife",
    "leaves": "leaf",
    "lives": "life",
    "loaves": "loaf",
    "men": "man",
    "mice": "mouse",
    "oxen": "ox",
    "people": "person",
    "scarves": "scarf",
    "shelves": "shelf",
    "teeth": "tooth",
    "thieves": "thief",
    "wives": "wife",
    "wolves": "wolf",
    "women": "woman",
}


def split_words(text: str) -> list[str]:
    """Lower-case words without punctuation; accents and ligatures as English spells them.

    >>> split_words("A man's T-shirt: caf\u00e9, \ufb01re hydrant.")
    ['a', "man's", 't-shirt', 'cafe', 'fire', 'hydrant']
    """
    if not text.isascii():
        text = _without_accents(text.replace("\u2019", "'"))
    return _WORD.findall(text.lower())


def _without_accents(text: str) -> str:
    # Letters only: a trademark sign would otherwise add the letters "TM" to the word before it.
    letters = (unicodedata.normalize("NFKD", sign) if sign.isalpha() else sign for sign in text)
    plain = (sign for sign in "".join(letters) if unicodedata.combining(sign) < _FIRST_ACCENT)
    return unicodedata.normalize("NFC", "".join(plain))


@lru_cache(maxsize=65536)
def word_forms(word: str) -> tuple[str, ...]:
    """The word as written, then every possible singular of it.

    Most of these are not words; use one only if it is in a list.

    >>> word_forms("buses")
    ('buses', 'buse', 'bus')
    """
    return tuple(dict.fromkeys(_candidates(word)))


def _candidates(word: str) -> Iterator[str]:
    yield word
    if word.endswith("'s"):
        yield word[:-2]
    if word in _IRREGULAR:
        yield _IRREGULAR[word]
    if not word.endswith("s") or word.endswith("ss"):
        return
    yield word[:-1]  # before "-es": planes are not plans, tubes not tubs
    if word.endswith("es"):
        yield word[:-2]
    if word.endswith("ies"):
        yield word[:-3] + "y"
    elif word.endswith("ves"):
        yield word[:-3] + "f"
        yield word[:-3] + "fe"
