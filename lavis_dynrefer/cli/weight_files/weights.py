"""List the files of the full model, and tell once where yours are.

dynrefer weights list
dynrefer weights set dynrefer /data/vg1.2_5e.pth
dynrefer weights unset dynrefer
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lavis_dynrefer.errors import InputError, MissingFileError, choice_problem
from lavis_dynrefer.models.weights.fetching.kept_parts import gigabytes
from lavis_dynrefer.models.weights.fetching.part_registry import register, registered, unregister
from lavis_dynrefer.models.weights.places import (
    KEYS,
    describe_part,
    files_of,
    look_up,
    model_section,
    named_file,
    only_named,
)
from lavis_dynrefer.models.weights.weight_checks import check_files
from lavis_dynrefer.paths import expand_home, find_resource

_FOLDERS = ("flan_t5",)  # parts of several files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer weights`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    of_model: dict[str, Any] = {
        "default": "flant5xl",
        "help": "flant5xl, vicuna7b, or the yaml of a model; default flant5xl",
    }
    actions.add_parser("list", help="the parts, and where they are").add_argument(
        "--model", **of_model
    )
    for name, text in (("set", "tell where a part is"), ("unset", "forget where a part is")):
        action = actions.add_parser(name, help=text)
        action.add_argument("part", help=", ".join(KEYS))
        if name == "set":
            action.add_argument("file", type=Path, help="a file; of flan_t5 a folder")
        action.add_argument("--model", **of_model)


def run(arguments: argparse.Namespace) -> int:
    """List, set or unset; returns the exit code."""
    section = model_section(arguments.model)
    if arguments.action == "list":
        _list(section)
        return 0
    published = files_of(section).published
    problem = choice_problem("part", arguments.part, published)
    model_type = files_of(section).model_type
    if problem is not None or model_type is None:
        raise InputError(problem or f"{arguments.model}: model.model_type is not set")
    if arguments.action == "set":
        path = _existing(expand_home(arguments.file), arguments.part)
        check_files(only_named(section, arguments.part, path), fetch=False)
        register(model_type, arguments.part, path)
        print(f"{model_type}: {arguments.part} is {path.absolute()}")
    elif not unregister(model_type, arguments.part):
        raise InputError(f"{arguments.part}: nothing was told for {model_type}")
    return 0


def _existing(path: Path, part: str) -> Path:
    """The path of a part, if it is what that part consists of."""
    if not path.exists():
        raise MissingFileError(f"{part}: there is no {path}")
    if path.is_dir() != (part in _FOLDERS):
        kind = "a folder of Hugging Face files" if part in _FOLDERS else "a file"
        raise InputError(f"{part}: expected {kind}, got {path}")
    return path


def part_places(section: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Each part with its path, size and who named it; None for one that is not here."""
    found = look_up(section)
    told = registered(files_of(section).model_type)
    for name, part in found.published.items():
        if name in found.absent:
            yield name, None
            continue
        path, source = found.here.get(name), "downloaded"
        if path is None:
            path, source = named_file(section, name), f"from {part.variable} or the yaml"
        elif name in told:
            source = "from `weights set`"
        yield name, f"{path}, {_size(path)}{source}"


def _list(section: dict[str, Any]) -> None:
    found = look_up(section)
    for name, place in part_places(section):
        print(f"{name}: {place or f'missing; {describe_part(found, name)}'}")


def _size(name: Any) -> str:
    """Size of a file, or of the files in a folder; says so if it is not there."""
    path = find_resource(name) if name else None
    if path is None:
        return "does not exist, "
    paths = [path, *path.rglob("*")]
    return gigabytes(sum(item.stat().st_size for item in paths if item.is_file())) + ", "
