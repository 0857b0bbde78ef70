"""What to answer about every region: options of `dynrefer predict` as `Questions`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from lavis_dynrefer.errors import InputError

if TYPE_CHECKING:  # imports torch, for which --help does not wait
    from lavis_dynrefer.questions import Questions


def split_at_commas(text: str) -> list[str]:
    """Words separated by commas, each once."""
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _words(text: str) -> list[str]:
    from lavis_dynrefer.vocab import load_names

    words = load_names(text[1:]) if text.startswith("@") else split_at_commas(text)
    if not words:
        raise InputError("expected words separated by commas, or @FILE")
    return words


def _attributes(text: str) -> Any:
    from lavis_dynrefer.vocab.prompts import load_attributes

    is_json = text.startswith("@") and text.lower().endswith(".json")
    return load_attributes(text[1:]) if is_json else _words(text)


class Option(NamedTuple):
    """The option of a field of `Questions`."""

    read: Callable[[str], Any]  # text of the option -> value of the field
    metavar: str
    help: str


_WORDS = "WORD,WORD or @FILE"
OPTIONS = {  # field of `Questions` -> its option
    "attributes": Option(_attributes, _WORDS, "to score; @FILE: one per line, or OVAD's json"),
    "categories": Option(_words, _WORDS, "to choose from; @FILE: one per line"),
    "tags": Option(_words, _WORDS, "to tag with; @FILE: one per line"),
    "controls": Option(_words, _WORDS, "words every caption should mention"),
    "tasks": Option(
        _words, "TASK,TASK", "some of caption, tags, attributes, categories; default: all"
    ),
    "views": Option(str, "POLICY", "such as image or fixed:0,0.5; default: the model's own"),
    "masks_as": Option(
        str, "USE", "masks of --boxes as box, cells or dim; default: what the model was trained for"
    ),
}


def add_question_arguments(parser: argparse.ArgumentParser) -> None:
    """An option for each question."""
    group = parser.add_argument_group("questions")
    for name, option in OPTIONS.items():
        group.add_argument(_flag(name), metavar=option.metavar, help=option.help)


def read_questions(arguments: argparse.Namespace) -> Questions:
    """The questions of the command line.

    Raises:
        InputError: an unknown task or policy, invalid words, or words for a task that is left out.
        MissingFileError: a file of words does not exist.
    """
    from lavis_dynrefer.questions import Questions

    values = {}
    for name, option in OPTIONS.items():
        text = getattr(arguments, name)
        if text is not None:
            try:
                values[name] = option.read(text)
            except InputError as error:
                raise InputError(f"{_flag(name)}: {error}") from error
    questions = Questions(**values)
    for name in ("attributes", "categories"):
        if name in values and name not in questions.tasks:
            raise InputError(f"{_flag(name)} needs {name} in --tasks")
    if "tags" in values and not {"tags", "caption"}.intersection(questions.tasks):
        raise InputError("--tags needs tags or caption in --tasks")
    return questions


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
