from __future__ import annotations

import pytest

from lavis_dynrefer.structures import AttributeInfo
from lavis_dynrefer.vocab.prompts import (
    attribute_prompts,
    attribute_synonyms,
    category_prompt,
    load_attributes,
    plain_attribute,
)


def attribute(name, kind, is_has):
    return AttributeInfo(name=name, type=kind, parent_type=kind, is_has=is_has, frequency="head")


def test_an_attribute_of_the_whole_uses_is():
    wet = attribute("state:wet", "state", "is")

    assert attribute_prompts(wet) == ["the wet", "the  is wet"]


def test_an_attribute_of_a_part_names_the_part():
    red = attribute("clothes color:red", "clothes color", "has")

    assert attribute_prompts(red) == ["the red clothes color", "the  has red clothes color"]


def test_tone_is_not_part_of_the_noun():
    dark = attribute("hair tone:dark", "hair tone", "has")

    assert attribute_prompts(dark) == ["the dark hair", "the  has dark hair"]


def test_every_synonym_gets_both_prompts():
    clean = attribute("cleanliness:clean/neat", "cleanliness", "is")

    assert attribute_prompts(clean) == ["the clean", "the  is clean", "the neat", "the  is neat"]


@pytest.mark.parametrize(
    ("name", "added"),
    [
        ("maturity:young/baby", ["kid", "kids", "child", "toddler", "boy", "girl"]),
        ("maturity:adult/old/aged", ["teen", "elder"]),
    ],
)
def test_age_has_more_synonyms_than_its_name(name, added):
    listed = name.split(":")[1].split("/")

    assert attribute_synonyms(attribute(name, "maturity", "is")) == listed + added


def test_old_gets_no_synonyms_outside_of_age():
    assert attribute_synonyms(plain_attribute("old")) == ["old"]


def test_a_plain_word_is_an_attribute():
    assert attribute_prompts("wet") == ["the wet", "the  is wet"]


@pytest.mark.parametrize("name", ["", " ", "state:", "state:wet/"])
def test_rejects_an_attribute_without_a_word(name):
    with pytest.raises(ValueError, match="expected a word"):
        attribute_prompts(name)


def test_category_prompt_is_lower_case():
    assert category_prompt("Tennis Racket") == "the tennis racket"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected an OVAD-style json"),
        ("<html>", "expected an OVAD-style json"),
        ("{}", "expected a list, or one under 'attributes'"),
        ("[]", "expected a list, or one under 'attributes'"),
        ('{"attributes": ["wet"]}', "expected a list of objects"),
        ('{"attributes": [{"name": "state:wet"}]}', "missing"),
        (
            '{"attributes": [{"name": "a:b", "type": "a", "parent_type": "a",'
            ' "is_has_att": "was", "freq_set": "head"}]}',
            "expected 'is' or 'has'",
        ),
    ],
)
def test_rejects_an_invalid_attribute_file(tmp_path, content, message):
    path = tmp_path / "attributes.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")

    with pytest.raises(ValueError, match=message):
        load_attributes(path)
