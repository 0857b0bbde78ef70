"""Prompts and control words of the official code."""

from __future__ import annotations

from collections import Counter

from golden_folder import read_json

from lavis_dynrefer.vocab.control_words import training_words
from lavis_dynrefer.vocab.prompts import attribute_prompts, attribute_synonyms, load_attributes

CASES = {
    "row": lambda folder: range(len(read_json(folder / "parse_sentence.json")["keep_all"])),
}


def test_control_words_equal_the_official_ones(golden_dir, row):
    case = read_json(golden_dir / "parse_sentence.json")["keep_all"][row]
    tag_list = (golden_dir / "configs/tag_list.txt").read_text(encoding="utf-8").splitlines()
    tags = [tag_list[index] for index in case["tag_ids_set1"] + case["tag_ids_set2"]]

    # a text instead of the parts of speech says that the official tagger failed
    tokens = case["pos_tags"] if isinstance(case["pos_tags"], list) else []

    words = training_words(case["caption"], tags, lambda _: tokens)

    # Two official defects are not copied. A word that occurs twice is looked up by its first
    # occurrence, so phrases that begin with it may differ. A caption without a noun or an adjective
    # adds an empty word, a stray comma in the prompt.
    counts = Counter(token for token, _ in tokens)
    repeated = {token for token, count in counts.items() if count > 1}
    official = [word for word in case["control_tokens_sorted"] if word]
    assert begins_once(words, repeated) == begins_once(official, repeated)
    assert set(tags) <= set(words)


def begins_once(words, repeated):
    return sorted(word for word in words if word.split()[0] not in repeated)


def test_attribute_prompts_equal_the_official_ones(golden_dir):
    golden = read_json(golden_dir / "outputs.json")
    attributes = load_attributes(golden_dir / "configs/ovad.json")
    by_synonym = {}
    for item in attributes:
        prompts = attribute_prompts(item)
        for row, synonym in enumerate(attribute_synonyms(item)):
            by_synonym.setdefault(synonym, []).extend(prompts[2 * row : 2 * row + 2])

    assert [len(attribute_prompts(item)) for item in attributes] == golden["att_len_synonyms"]
    assert by_synonym == golden["syn2template"]
