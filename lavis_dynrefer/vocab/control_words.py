"""Control words: what the captioner should mention; in training they come from the caption.

A prompt is the words joined by commas and closed by a bar; without words it is the bar alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lavis_dynrefer.config import ControlSettings
from lavis_dynrefer.vocab.pos import PosTagger, build_pos_tagger, is_content, is_noun


def control_prompt(words: Iterable[str]) -> str:
    """The prompt for these words.

    >>> control_prompt(["red dog", "bench"])
    'red dog,bench|'
    """
    return ",".join(words) + "|"


@dataclass(frozen=True)
class ControlSampler:
    """Samples control prompts for training captions.

    Args:
        pos: part-of-speech tagger that finds noun phrases; without one only tags are used.
        drop_all: probability that a caption gets no control words; 0.5 in the released code.
        drop: probability that a single word is dropped otherwise; 0.5 in the released code.
    """

    pos: PosTagger | None = None
    drop_all: float = 0.5
    drop: float = 0.5

    @classmethod
    def from_settings(cls, settings: ControlSettings) -> ControlSampler:
        """The sampler of a model's or a dataset's settings.

        Raises:
            InputError: an unknown part-of-speech tagger.
            MissingPackageError: its package is not installed.
        """
        pos = build_pos_tagger(settings.control_pos) if settings.control_pos else None
        return cls(pos, settings.control_drop_all, settings.control_drop)

    def prompt(self, caption: str, tags: Iterable[str], rng: random.Random) -> str:
        """A prompt for one caption with these tags."""
        if rng.random() < self.drop_all:
            return control_prompt([])
        words = training_words(caption, tags, self.pos)
        return control_prompt(sample_control_words(words, rng=rng, drop=self.drop))


def training_words(caption: str, tags: Iterable[str], pos: PosTagger | None = None) -> list[str]:
    """All candidates for control words of a caption: its tags and noun phrases.

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
    words: Sequence[str], *, rng: random.Random, drop: float = 0.5
) -> list[str]:
    """Random subset in random order, so that the captioner learns to use any number of words.

    Args:
        words: candidates from `training_words`.
        rng: source of randomness.
        drop: probability that a word is dropped.
    """
    kept = [word for word in words if rng.random() >= drop]
    rng.shuffle(kept)
    return kept
