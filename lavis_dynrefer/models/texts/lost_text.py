"""What a tokenizer loses of texts: tokens beyond a limit, and words that it does not know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

NEARLY_ALL = 0.9  # of the letters


@dataclass(frozen=True)
class LostText:
    """Counts over some texts.

    Args:
        texts: how many were looked at.
        cut: those with more tokens than the limit, of which only the first are used.
        longest: tokens of the longest.
        limit: tokens that are used of a text.
        tokens: of all texts.
        unknown: tokens of them that stand for something the tokenizer does not know.
        letters: letters and digits of all texts.
        lost_letters: those of them in unknown tokens.
        example: the first text with an unknown token; "" if there is none.
    """

    texts: int
    cut: int
    longest: int
    limit: int
    tokens: int
    letters: int
    unknown: int = 0
    lost_letters: int = 0
    example: str = ""

    @property
    def is_unusable(self) -> bool:
        """Whether nothing or next to nothing is left of the texts."""
        return self.letters > 0 and self.lost_letters >= NEARLY_ALL * self.letters


def count_lost(texts: Sequence[str], tokenizer: Any, limit: int) -> LostText:
    """Count what is lost of texts.

    Args:
        texts: the texts.
        tokenizer: of Hugging Face.
        limit: tokens that are used of a text, special ones not counted.
    """
    rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
    unknown_id = tokenizer.unk_token_id
    unknown = lost = 0
    example = ""
    for text, row in zip(texts, rows):
        count = row.count(unknown_id)
        if count:
            known = [number for number in row if number != unknown_id]
            left = _letters(tokenizer.decode(known, skip_special_tokens=True))
            unknown, lost = unknown + count, lost + max(_letters(text) - left, 0)
            example = example or text
    counts = lost_of_rows(texts, rows, limit)
    return replace(counts, unknown=unknown, lost_letters=lost, example=example)


def lost_of_rows(texts: Sequence[str], rows: Sequence[Sequence[int]], limit: int) -> LostText:
    """As `count_lost`, from the tokens of each text; all of them are known."""
    return LostText(
        texts=len(texts),
        cut=sum(len(row) > limit for row in rows),
        longest=max(map(len, rows), default=0),
        limit=limit,
        tokens=sum(map(len, rows)),
        letters=sum(map(_letters, texts)),
    )


def _letters(text: str) -> int:
    return sum(map(str.isalnum, text))
