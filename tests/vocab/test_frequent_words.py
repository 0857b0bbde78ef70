from __future__ import annotations

from lavis_dynrefer.vocab.frequent_words import build_vocabulary


def test_vocabulary_is_the_frequent_words_without_stop_words():
    captions = ["the red dog", "red dogs", "the dog", "a red cat", "3 3 3 dogs"]

    found = build_vocabulary(captions, ["the", "a"], min_count=2)

    assert found == ["dog", "red"]


def test_vocabulary_size_is_a_limit():
    assert build_vocabulary(["b b a a c"], [], size=2, min_count=1) == []
    assert build_vocabulary(["bb bb aa aa cc"], [], size=2, min_count=1) == ["aa", "bb"]


def test_captions_are_read_once_and_one_at_a_time():
    def stream():
        yield "red dog"
        yield "red cat"

    assert build_vocabulary(stream(), [], min_count=2) == ["red"]


def test_a_typing_error_is_no_singular():
    captions = ["a bus"] * 40 + ["a bu"]

    assert build_vocabulary(captions, ["a"], min_count=1) == ["bus", "bu"]


def test_a_plural_without_its_singular_stays():
    assert build_vocabulary(["red jeans"], [], min_count=1) == ["jeans", "red"]


def test_a_stop_word_does_not_count_for_a_singular():
    assert build_vocabulary(["this this thi"], ["this"], min_count=2) == []


def test_with_parts_of_speech_only_nouns_and_adjectives_are_counted():
    names = {"red": "JJ", "dogs": "NNS", "run": "VBP", "dog": "NN"}

    def pos(caption):
        return [(word, names[word]) for word in caption.split()]

    found = build_vocabulary(["red dogs run", "dog run"], [], min_count=1, pos=pos)

    assert found == ["dog", "red"]


def test_no_captions_give_no_tags():
    assert build_vocabulary([], []) == []
