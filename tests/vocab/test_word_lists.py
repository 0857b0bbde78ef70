from __future__ import annotations

import pytest

from lavis_dynrefer.structures import AttributeInfo
from lavis_dynrefer.vocab.word_lists import check_words

RECORD = AttributeInfo("color:red", "color", "color", "is", "head")


@pytest.mark.parametrize(
    "words", [None, [], ["dog", "花", "\U0001f600", "a\u202eb"], ("a",), [RECORD]]
)
def test_words_of_any_script_are_words(words):
    check_words("categories", words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("dog", "categories: expected a list of words, got 'dog'"),
        (["dog", ""], "categories: expected words, got ''"),
        ([" \t"], "expected words"),
        ([3], "expected words, got 3"),
        (["a\x01b"], "expected words, got 'a\\\\x01b'"),
        (["\udcff"], "whole characters"),
    ],
)
def test_what_is_no_word_is_named(words, message):
    with pytest.raises(ValueError, match=message):
        check_words("categories", words)
