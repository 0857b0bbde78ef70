"""Hand-counted losses of small tokenizers."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lavis_dynrefer.models.texts.lost_text import count_lost
from lavis_dynrefer.models.texts.tokenizers import build_text_tokenizer

WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "bus", "b"]


@pytest.fixture(scope="module")
def words():
    """Knows four words; anything else is one unknown token a word."""
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="</s>"
    )


def test_tokens_beyond_the_limit_and_unknown_ones_are_counted(words):
    lost = count_lost(["a red bus", "a bus", "a Straße b"], words, limit=2)

    assert (lost.texts, lost.cut, lost.longest, lost.tokens) == (3, 2, 3, 8)
    assert (lost.unknown, lost.letters, lost.lost_letters) == (1, 7 + 4 + 8, 6)
    assert lost.example == "a Straße b"
    assert not lost.is_unusable


@pytest.mark.parametrize(
    ("texts", "unusable"),
    [
        (["红色方块", "一辆公交车"], True),
        (["红色方块红色方块红色方块 a", "一辆公交车"], True),  # 1 of 18 letters is known
        (["红 a red bus"], False),
        (["...", ""], False),  # nothing to lose
        ([], False),
    ],
)
def test_texts_of_which_next_to_nothing_is_known(words, texts, unusable):
    assert count_lost(texts, words, limit=9).is_unusable is unusable


@pytest.mark.parametrize("name", ["clip", "assets/tiny/tokenizer.json"])
def test_tokenizers_by_bytes_know_every_text(name):
    tokenizer = build_text_tokenizer(name, context_length=12)

    lost = tokenizer.lost(["红色方块", "a red bus", "a " * 40])

    assert (lost.unknown, lost.lost_letters) == (0, 0)
    assert lost.limit == 10  # start and end
    assert lost.cut >= 1
    for text in ("a red bus", "a " * 40):
        rows = tokenizer([text])
        cut = tokenizer.lost([text]).cut == 1
        assert cut == (rows.shape[1] == 12 and bool(tokenizer.lost([text]).longest > 10))
