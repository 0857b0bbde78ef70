"""Prompts and control words of the released code."""

from __future__ import annotations

import json

import pytest

from lavis_dynrefer.vocab.control_words import training_words
from lavis_dynrefer.vocab.prompts import attribute_prompts, attribute_synonyms, load_attributes


@pytest.fixture(scope="module")
def golden(golden_dir):
    return json.loads((golden_dir / "parse_sentence.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("row", [0, 1, 2])
def test_official_words_of_a_caption(golden, golden_dir, row):
    case = golden["keep_all"][row]
    tag_list = (golden_dir / "configs/tag_list.txt").read_text(encoding="utf-8").splitlines()
    tags = [tag_list[index] for index in case["tag_ids_set1"] + case["tag_ids_set2"]]

    words = training_words(case["caption"], tags, lambda _: case["pos_tags"])

    assert sorted(words) == case["control_tokens_sorted"]


def test_official_prompts_of_all_117_attributes(golden_dir):
    golden = json.loads((golden_dir / "outputs.json").read_text(encoding="utf-8"))
    attributes = load_attributes(golden_dir / "configs/ovad.json")
    by_synonym = {}
    for item in attributes:
        prompts = attribute_prompts(item)
        for row, synonym in enumerate(attribute_synonyms(item)):
            by_synonym.setdefault(synonym, []).extend(prompts[2 * row : 2 * row + 2])

    assert [len(attribute_prompts(item)) for item in attributes] == golden["att_len_synonyms"]
    assert by_synonym == golden["syn2template"]
