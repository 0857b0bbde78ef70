"""Control words: what the user, or in training the caption itself, tells the captioner to mention.

A prompt is the words joined by commas and closed by a bar; no words give the bar alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from lavis_dynrefer.vocab.pos import PosTagger, is_content, is_noun

_SEPARATOR = ","
_END = "|"


def control_prompt(words: Iterable[str]) -> str:
    """The prompt for these words.

    >>> control_prompt(["red dog", "bench"])
    'red dog,bench|'
    """
    return _SEPARATOR.join(words) + _END


def parse_controls(text: str) -> list[str]:
    """Words typed by a user: split at commas and bars, blanks and empty words dropped.

    >>> parse_controls(" red dog, bench,|")
    ['red dog', 'bench']
    """
    words = text.replace(_END, _SEPARATOR).split(_SEPARATOR)
    return [word.strip() for word in words if word.strip()]


def training_words(caption: str, tags: Iterable[str], pos: PosTagger | None = None) -> list[str]:
    """Everything a caption could be asked to mention: its tags and its noun phrases.

    Args:
        caption: the reference sentence.
        tags: tags of the caption.
        pos: part-of-speech tagger; without one only the tags are used.

    Returns:
        Distinct words and phrases, tags first, in order.
    """
    phrases = content_phrases(pos(caption)) if pos is not None else []
    return list(dict.fromkeys([*tags, *phrases]))


def content_phrases(tokens: Sequence[tuple[str, str]]) -> list[str]:
    """Every noun and adjective, each with the nouns that directly follow it.

    >>> content_phrases([("red", "JJ"), ("tennis", "NN"), ("racket", "NN"), ("lies", "VBZ")])
    ['red tennis racket', 'tennis racket', 'racket']
    """
    phrases = []
    for start, token in enumerate(tokens):
        if not is_content(*token):
            continue
        end = start + 1
        while end < len(tokens) and is_noun(*tokens[end]):
            end += 1
        phrases.append(" ".join(word for word, _ in tokens[start:end]))
    return list(dict.fromkeys(phrases))


def sample_control_words(
    words: Sequence[str], *, rng: random.Random, drop_all: float = 0.5, drop: float = 0.5
) -> list[str]:
    """Random subset in random order, so that the captioner learns to do with any number of words.

    Args:
        words: candidates from `training_words`.
        rng: source of randomness.
        drop_all: chance that no word is kept; 0.5 in the released code.
        drop: chance that a single word is dropped otherwise; 0.5 in the released code.
    """
    if rng.random() < drop_all:
        return []
    kept = [word for word in words if rng.random() >= drop]
    rng.shuffle(kept)
    return kept
