"""Lists of words: read from a file, checked, or built from captions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lavis_dynrefer.errors import InputError, MissingFileError
from lavis_dynrefer.structures import AttributeInfo
from lavis_dynrefer.vocab.english_words import split_words, word_forms
from lavis_dynrefer.vocab.pos import PosTagger, is_content

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # XML files cannot hold these characters
# A rarer "singular" is a typing error, or another word: "bu" for "bus", "pant" for "pants".
_MIN_SHARE = 0.05


def load_names(path: str | Path) -> list[str]:
    """Read a list of names, one per line, in order; blank lines are skipped.

    Raises:
        MissingFileError: there is no such file.
        InputError: the file is not text, holds no name, or holds one twice.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise MissingFileError(
            f"no vocabulary {path}; give a file with one name per line"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"vocabulary {path}: expected text, one name per line: {error}") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise InputError(f"vocabulary {path}: expected one name per line, got none")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(f"vocabulary {path}: {repeated[:5]} occur more than once")
    return names


def check_words(name: str, words: Iterable[Any] | None) -> None:
    """Refuse anything but a list of words.

    Args:
        name: of the argument, for the error.
        words: words or attribute records; None is allowed.

    Raises:
        InputError: a string instead of a list, an item that is not a word, or a broken character
            (from text in another encoding).

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
            raise InputError(f"{name}: {word!r:.60} is not valid text; is it UTF-8?") from error


def build_vocabulary(
    captions: Iterable[str],
    stop_words: Iterable[str],
    *,
    size: int = 1000,
    min_count: int = 3,
    pos: PosTagger | None = None,
) -> list[str]:
    """The most frequent words of the captions, as a tag list.

    A plural is counted with its singular if the captions use that too. Stop words, numbers and
    words of one letter are left out; the rest are mostly nouns and adjectives.

    Args:
        captions: sentences, cleaned or not; read once, one at a time.
        stop_words: words never taken.
        size: maximum number of tags.
        min_count: minimum number of occurrences of a word.
        pos: part-of-speech tagger; with one only nouns and adjectives are counted.

    Returns:
        Tags, most frequent first, ties in alphabetical order.
    """
    counts: Counter[str] = Counter()
    for caption in captions:
        counts.update(split_words(caption) if pos is None else _content_words(caption, pos))
    skipped = set(stop_words)
    folded: Counter[str] = Counter()
    for word, count in counts.items():
        if word not in skipped:
            folded[_singular(word, counts)] += count
    usable = [
        (word, count)
        for word, count in folded.items()
        if count >= min_count and len(word) > 1 and not word.isdigit() and word not in skipped
    ]
    usable.sort(key=lambda item: (-item[1], item[0]))
    return [word for word, _ in usable[:size]]


def _content_words(caption: str, pos: PosTagger) -> list[str]:
    tokens = [token for token, name in pos(caption) if is_content(token, name)]
    return [word for token in tokens for word in split_words(token)]


def _singular(word: str, counts: Counter[str]) -> str:
    min_count = max(1, _MIN_SHARE * counts[word])
    return next((form for form in word_forms(word)[1:] if counts[form] >= min_count), word)
