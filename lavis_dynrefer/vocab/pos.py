"""Parts of speech by textblob, which needs no download."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from lavis_dynrefer.errors import InputError, MissingPackageError

PosTagger = Callable[[str], Sequence[tuple[str, str]]]
"""caption -> (token, part of speech) with Penn names: NN* are nouns, JJ* adjectives."""


def build_pos_tagger(name: str) -> PosTagger:
    """Build a part-of-speech tagger: a plain function, which can be pickled.

    Args:
        name: "textblob" (the word lists of Pattern).

    Raises:
        InputError: an unknown name.
        MissingPackageError: textblob is not installed.
    """
    if name != "textblob":
        raise InputError(f"part-of-speech tagger {name!r} is unknown; choose 'textblob'")
    _load_textblob()
    return textblob_pos


def textblob_pos(caption: str) -> Sequence[tuple[str, str]]:
    """Penn names by textblob's PatternTagger."""
    tokens: Sequence[tuple[str, str]] = _load_textblob().tag(caption)
    return tokens


def is_noun(token: str, pos: str) -> bool:
    """Whether a token is a noun; signs such as a dash, which textblob calls nouns, are not."""
    return pos.startswith("NN") and any(map(str.isalpha, token))


def is_content(token: str, pos: str) -> bool:
    """Whether a token is a noun or an adjective."""
    return is_noun(token, pos) or pos.startswith("JJ")


@lru_cache(maxsize=1)
def _load_textblob() -> Any:
    try:
        from textblob.en.taggers import PatternTagger
    except ImportError as error:
        raise MissingPackageError(
            "part-of-speech tagger 'textblob': pip install textblob"
        ) from error
    except ValueError as error:  # nltk, on import
        raise InputError(f"textblob needs a home folder of this user: {error}; set HOME") from error
    return PatternTagger()
