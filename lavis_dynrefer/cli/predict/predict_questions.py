"""What is asked about every region: options of `dynrefer predict` as `Questions`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.questions import Questions
from lavis_dynrefer.vocab import load_names
from lavis_dynrefer.vocab.prompts import load_attributes


def read_questions(texts: Mapping[str, str | None]) -> Questions:
    """The questions of the command line.

    Args:
        texts: field of `Questions` -> what its option says, None where it is not given.

    Raises:
        InputError: an unknown task or policy, invalid words, or words for a task that is left out.
        MissingFileError: a file of words does not exist.
    """
    asked = {name: _read(name, text) for name, text in texts.items() if text is not None}
    questions = Questions(**asked)
    for name in ("attributes", "categories"):
        if name in asked and name not in questions.tasks:
            raise InputError(f"--{name} is a question that --tasks leaves out")
    if "tags" in asked and not {"tags", "caption"}.intersection(questions.tasks):
        raise InputError("--tags are for tags and captions, which --tasks leaves out")
    return questions


def split_words(text: str) -> list[str]:
    """Words separated by commas, each once."""
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _read(name: str, text: str) -> Any:
    if name == "views":
        return text
    if name == "attributes" and text.startswith("@") and text.lower().endswith(".json"):
        return load_attributes(text[1:])
    words = load_names(text[1:]) if text.startswith("@") else split_words(text)
    if not words:
        raise InputError(f"--{name}: expected words separated by commas, or @FILE")
    return words
