"""A tag list made from the captions themselves, for those who have none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from lavis_dynrefer.vocab.pos import PosTagger, is_content
from lavis_dynrefer.vocab.words import split_words, word_forms

# A rarer "singular" is a typing error, or another word: "bu" for "bus", "pant" for "pants".
_LEAST_SHARE = 0.05


def build_vocabulary(
    captions: Iterable[str],
    stop_words: Iterable[str],
    *,
    size: int = 1000,
    min_count: int = 3,
    pos: PosTagger | None = None,
) -> list[str]:
    """The most frequent words of the captions, as a tag list.

    Plurals are counted with their singular where the captions use it too. Stop words, numbers and
    words of one letter are left out; what remains is mostly nouns and adjectives, and with a
    part-of-speech tagger nothing else.

    Args:
        captions: sentences, cleaned or not; read once, one at a time.
        stop_words: words never taken.
        size: most tags to return.
        min_count: a word must occur at least this often.
        pos: part-of-speech tagger; counts a word only where it is a noun or an adjective.

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
    return [
        word
        for token, name in pos(caption)
        if is_content(token, name)
        for word in split_words(token)
    ]


def _singular(word: str, counts: Counter[str]) -> str:
    least = max(1, _LEAST_SHARE * counts[word])
    return next((form for form in word_forms(word)[1:] if counts[form] >= least), word)
