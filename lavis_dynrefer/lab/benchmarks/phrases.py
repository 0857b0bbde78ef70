"""Phrases like those of Visual Genome, in any number: for measuring, not for training."""

from __future__ import annotations

import numpy as np

# Number of words of the 1,278 regions of Visual Genome's images 1 to 5 -> share; the last is
# over-long. Capitals stand for a word of that kind.
_PATTERNS = {
    "N": 2,
    "A N": 15,
    "a A N": 75,
    "the N is A": 291,
    "a N P the N": 372,
    "a A N P the N": 277,
    "A N and N P the N": 151,
    "the A N is P the A N": 64,
    "a N with A N P the A N": 25,
    "a A N and a A N P the A N of the N": 4,
    "a A N and a A N P the A N with the A N P the N": 2,
}
_NOUNS = """
man woman window tree shirt building sign wall grass sky table hair leaves chair car road plate
people street person hand head fence water bag clock door pole boy light girl pants jacket shadow
leg snow cloud train bus horse bike floor hat wheel arm sidewalk flower bench roof shoe glass dog
letter boat elephant leaf beach wave rock tail ear helmet board lamp cup cat bowl box field eye
zebra giraffe tower bottle mirror pillow shelf lid cabinet keyboard screen sink bed counter toilet
towel plant cow sheep bird wing engine truck tire license umbrella ball racket glove cap skateboard
surfboard kite stripe brick tile curtain image frame book paper vase food pizza cheese cake fork
knife spoon banana apple orange carrot broccoli sandwich napkin tray oven microwave refrigerator
handle knob button wire
"""
_ADJECTIVES = """
white black green blue brown red yellow gray large small wooden tall orange young metal old silver
long dark short pink round big grassy bright clear purple little bare blonde striped empty wet
sandy dirty stone colorful plastic leafy cloudy glass parked open paved tan rocky concrete thin
hanging framed shiny rectangular square leather curly snowy
"""
_PREPOSITIONS = """
on in behind near under above along beside by against below across outside over underneath inside
around between beneath past
"""
_WORDS = {"N": _NOUNS.split(), "A": _ADJECTIVES.split(), "P": _PREPOSITIONS.split()}
# Shares of the same 1,278 regions, but for the last one, which is assumed.
CAPITALS = 332 / 1278
NEWLINES = 13 / 1278
BLANKS = 77 / 1278
STOPS = 65 / 1278
EMPTY = 1 / 100_000


def draw_phrases(count: int, rng: np.random.Generator) -> list[str]:
    """Phrases with the lengths, capitals and stray blanks of the real ones.

    Args:
        count: how many.
        rng: source of randomness.
    """
    weights = np.array(list(_PATTERNS.values()), dtype=float)
    chosen = rng.choice(len(weights), size=count, p=weights / weights.sum())
    patterns = [pattern.split() for pattern in _PATTERNS]
    longest = max(pattern.count(kind) for pattern in patterns for kind in _WORDS)
    supply = {kind: iter(_draw_words(kind, longest * count, rng)) for kind in _WORDS}
    odd = rng.random((count, 5)) < (CAPITALS, NEWLINES, BLANKS, STOPS, EMPTY)  # (count, 5)
    return [
        _dress(" ".join([next(supply[w]) if w in supply else w for w in patterns[number]]), marks)
        for number, marks in zip(chosen.tolist(), odd.tolist())
    ]


def _draw_words(kind: str, count: int, rng: np.random.Generator) -> list[str]:
    """Few words are frequent and many are rare, as in any text: shares fall with the rank."""
    words = _WORDS[kind]
    shares = 1 / np.arange(1, len(words) + 1)
    picked = rng.choice(len(words), size=count, p=shares / shares.sum())
    return np.array(words, dtype=object)[picked].tolist()


def _dress(phrase: str, marks: list[bool]) -> str:
    capital, newline, blank, stop, empty = marks
    if empty:
        return ""
    phrase = phrase.capitalize() if capital else phrase
    return phrase + "." * stop + " " * blank + "\n" * newline
