from __future__ import annotations

import json

import pytest

from lavis_dynrefer.paths import find_resource
from lavis_dynrefer.structures import AttributeInfo
from lavis_dynrefer.vocab import build_vocabulary, check_words, load_names

RECORD = AttributeInfo("color:red", "color", "color", "is", "head")


def test_names_keep_their_order_without_blank_lines(tmp_path):
    path = tmp_path / "tags.txt"
    path.write_text("\ufeffdog\n\n hot dog \ncat", encoding="utf-8")

    assert load_names(path) == ["dog", "hot dog", "cat"]


@pytest.mark.parametrize("content", [b"", b" \n", b"dog\ndog\n", b"\xff\xfe\x00"])
def test_rejects_an_invalid_list(tmp_path, content):
    path = tmp_path / "tags.txt"
    path.write_bytes(content)

    with pytest.raises(ValueError, match=r"tags\.txt"):
        load_names(path)


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.txt"):
        load_names(tmp_path / "absent.txt")


def test_shipped_categories_are_those_of_coco_in_file_order(shared):
    path = shared / "fixtures/coco_ovad_e2e/annotations/instances_val2017.json"
    document = json.loads(path.read_text(encoding="utf-8"))

    shipped = load_names(find_resource("vocab/data/coco_categories.txt"))

    assert shipped == [category["name"] for category in document["categories"]]


@pytest.mark.parametrize(
    "words", [None, [], ["dog", "花", "\U0001f600", "a\u202eb"], ("a",), [RECORD]]
)
def test_words_of_any_script_are_valid(words):
    check_words("categories", words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("dog", "categories: expected a list of words, got 'dog'"),
        (["dog", ""], "categories: expected words, got ''"),
        ([" \t"], "expected words"),
        ([3], "expected words, got 3"),
        (["a\x01b"], "expected words, got 'a\\\\x01b'"),
        (["\udcff"], "is not valid text"),
    ],
)
def test_rejects_invalid_words(words, message):
    with pytest.raises(ValueError, match=message):
        check_words("categories", words)


def test_a_vocabulary_holds_the_frequent_words_without_stop_words():
    captions = ["the red dog", "red dogs", "the dog", "a red cat", "3 3 3 dogs"]

    found = build_vocabulary(captions, ["the", "a"], min_count=2)

    assert found == ["dog", "red"]


def test_the_size_limits_a_vocabulary():
    assert build_vocabulary(["b b a a c"], [], size=2, min_count=1) == []
    assert build_vocabulary(["bb bb aa aa cc"], [], size=2, min_count=1) == ["aa", "bb"]


def test_captions_are_read_once_and_one_at_a_time():
    def stream():
        yield "red dog"
        yield "red cat"

    assert build_vocabulary(stream(), [], min_count=2) == ["red"]


def test_a_typing_error_is_not_a_singular():
    captions = ["a bus"] * 40 + ["a bu"]

    assert build_vocabulary(captions, ["a"], min_count=1) == ["bus", "bu"]


def test_a_plural_without_its_singular_stays():
    assert build_vocabulary(["red jeans"], [], min_count=1) == ["jeans", "red"]


def test_a_stop_word_is_not_counted_with_its_singular():
    assert build_vocabulary(["this this thi"], ["this"], min_count=2) == []


def test_with_a_pos_tagger_only_nouns_and_adjectives_are_counted():
    names = {"red": "JJ", "dogs": "NNS", "run": "VBP", "dog": "NN"}

    def pos(caption):
        return [(word, names[word]) for word in caption.split()]

    found = build_vocabulary(["red dogs run", "dog run"], [], min_count=1, pos=pos)

    assert found == ["dog", "red"]


def test_no_captions_give_no_tags():
    assert build_vocabulary([], []) == []
