"""Part-of-speech taggers that need no download: by name, loaded on first use.

Each is a plain function, so that worker processes can be handed one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from lavis_dynrefer.errors import InputError, MissingPackageError
from lavis_dynrefer.vocab.words import split_words

PosTagger = Callable[[str], Sequence[tuple[str, str]]]
"""caption -> (token, part of speech) with Penn or BNC names: NN* nouns, JJ* and AJ* adjectives."""

_NOUNS = ("NN", "NP")  # NP0 is the BNC's name of proper nouns
_ADJECTIVES = ("JJ", "AJ")
_NUMBERS = ("CD", "CRD")


def build_pos_tagger(name: str) -> PosTagger:
    """The part-of-speech tagger of that name.

    Args:
        name: "textblob" (the word lists of Pattern; fast) or "hanta" (a hidden Markov model;
            more exact, slower, LGPL-3).

    Raises:
        ValueError: an unknown name.
        ImportError: its package is not installed.
    """
    if name not in _TAGGERS:
        raise InputError(f"part-of-speech tagger {name!r} is unknown; choose from {list(_TAGGERS)}")
    tagger, load = _TAGGERS[name]
    load()
    return tagger


def is_noun(token: str, pos: str) -> bool:
    """Whether a token is a noun; signs such as a dash, which textblob calls nouns, are not."""
    return pos.startswith(_NOUNS) and any(map(str.isalpha, token))


def is_content(token: str, pos: str) -> bool:
    """Whether a token is a noun or an adjective."""
    return is_noun(token, pos) or pos.startswith(_ADJECTIVES)


def is_number(token: str, pos: str) -> bool:
    """Whether a token is a number, in words or digits."""
    del token
    return pos.startswith(_NUMBERS)


def textblob_pos(caption: str) -> Sequence[tuple[str, str]]:
    """Penn names by textblob's PatternTagger, which brings its word lists along."""
    found: Sequence[tuple[str, str]] = _load_textblob().tag(caption)
    return found


def hanta_pos(caption: str) -> Sequence[tuple[str, str]]:
    """BNC names by the Hanover Tagger, for the words that `split_words` finds."""
    words = split_words(caption)
    return list(zip(words, _load_hanta().tag_sent(words, taglevel=0)))


@lru_cache(maxsize=1)
def _load_textblob() -> Any:
    try:
        from textblob.en.taggers import PatternTagger
    except ImportError as error:
        raise MissingPackageError(
            "part-of-speech tagger 'textblob': pip install textblob"
        ) from error
    return PatternTagger()


@lru_cache(maxsize=1)
def _load_hanta() -> Any:
    try:
        from HanTa.HanoverTagger import HanoverTagger
    except ImportError as error:
        raise MissingPackageError(
            "part-of-speech tagger 'hanta': pip install HanTa (LGPL-3), "
            "or pip install 'lavis_dynrefer[pos]'"
        ) from error
    return HanoverTagger("morphmodel_en.pgz")


_TAGGERS: dict[str, tuple[PosTagger, Callable[[], Any]]] = {
    "textblob": (textblob_pos, _load_textblob),
    "hanta": (hanta_pos, _load_hanta),
}
