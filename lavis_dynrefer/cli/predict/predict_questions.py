"""What is asked about every region, and by which model: arguments of `dynrefer predict`."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.answering import TASKS, Attribute
from lavis_dynrefer.vocab.names import load_names
from lavis_dynrefer.vocab.prompts import load_attributes, plain_attribute
from lavis_dynrefer.vocab.word_lists import check_words


def add_question_arguments(parser: argparse.ArgumentParser) -> None:
    """Questions, model and device."""
    words = "WORD,WORD or @FILE"
    parser.add_argument("--attributes", metavar=words, help="@FILE: one per line, or OVAD's json")
    parser.add_argument("--categories", metavar=words, help="to choose from; @FILE: one per line")
    parser.add_argument("--tags", metavar=words, help="to tag with; @FILE: one per line")
    parser.add_argument("--controls", metavar=words, help="what every caption should be about")
    parser.add_argument("--tasks", metavar="TASK,TASK", help=f"out of {', '.join(TASKS)}; else all")
    parser.add_argument(
        "--views",
        help="fixed:0,0.5 (scales), task, image, joint or random; else the model's own policy",
    )
    parser.add_argument("--model", default="tiny", help="tiny, flant5xl, ...; default tiny")
    parser.add_argument("--checkpoint", help="weights in place of the model's own")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")


def questions_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `RegionPredictor.predict_iter`.

    Raises:
        ValueError: an unknown task, words that are none, or words for a task that is left out.
        FileNotFoundError: no such file of words.
    """
    tasks = TASKS if arguments.tasks is None else tuple(typed_words(arguments.tasks))
    if not tasks or set(tasks) - set(TASKS):
        raise InputError(f"--tasks: expected some of {', '.join(TASKS)}, got {arguments.tasks!r}")
    for option in ("attributes", "categories"):
        if getattr(arguments, option) is not None and option not in tasks:
            raise InputError(f"--{option} is a question that --tasks leaves out")
    if arguments.tags is not None and not {"tags", "caption"} & set(tasks):
        raise InputError("--tags are for tags and captions, which --tasks leaves out")
    return {
        "attributes": _attributes(arguments.attributes),
        "categories": _words("--categories", arguments.categories),
        "tags": _words("--tags", arguments.tags),
        "controls": _words("--controls", arguments.controls) or [],
        "tasks": tasks,
        "views": arguments.views,
    }


def _attributes(text: str | None) -> Sequence[Attribute] | None:
    if text is not None and text.startswith("@") and text.lower().endswith(".json"):
        return load_attributes(text[1:])
    names = _words("--attributes", text)
    for name in names or ():
        plain_attribute(name)  # raises where it is no word
    return names


def _words(option: str, text: str | None) -> list[str] | None:
    if text is None:
        return None
    words = load_names(text[1:]) if text.startswith("@") else typed_words(text)
    if not words:
        raise InputError(f"{option}: expected words with commas between them, or @FILE")
    check_words(option, words)
    return words


def typed_words(text: str) -> list[str]:
    """Words with commas between them, each once."""
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def settings_of(arguments: argparse.Namespace, questions: Mapping[str, Any]) -> dict[str, Any]:
    """What the answers depend on, beside images and boxes."""
    attributes = [
        name if isinstance(name, str) else dataclasses.asdict(name)
        for name in questions["attributes"] or ()
    ]
    checkpoint: list[Any] | None = None
    if arguments.checkpoint is not None:
        path = Path(arguments.checkpoint)
        checkpoint = [str(path.absolute())]
        if path.is_file():  # a later run may have written another one in its place
            checkpoint += [path.stat().st_size, int(path.stat().st_mtime)]
    proposals = None
    if arguments.proposals:
        proposals = [str(arguments.proposal_weights.absolute()), arguments.proposal_count]
    points = [arguments.point, str(arguments.sam.absolute())] if arguments.point else None
    return {
        "model": arguments.model,
        "checkpoint": checkpoint,
        **questions,
        "attributes": attributes or None,
        "proposals": proposals,
        "points": points,
    }
