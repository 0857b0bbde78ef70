"""Words that users ask about: attributes, categories, what a caption should be about."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.structures import AttributeInfo

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # no file of ours in XML could hold them


def check_words(name: str, words: Iterable[Any] | None) -> None:
    """Refuse what is no list of words.

    Args:
        name: of the argument, for the error.
        words: what was given; None is fine, and so are records of attributes.

    Raises:
        ValueError: one text in place of a list, something that is no word, or half a character, as
            the bytes of another encoding leave it.

    >>> check_words("categories", ["花", "dog"])
    """
    if isinstance(words, str):
        raise InputError(f"{name}: expected a list of words, got {words!r:.60}")
    for word in words or ():
        if isinstance(word, AttributeInfo):
            continue
        if not isinstance(word, str) or not word.strip() or _CONTROL.search(word):
            raise InputError(f"{name}: expected words, got {word!r:.60}")
        try:
            word.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"{name}: expected text of whole characters, got {word!r:.60}; is it UTF-8?"
            ) from error
