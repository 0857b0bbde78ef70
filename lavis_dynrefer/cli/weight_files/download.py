"""Download the public parts of the full model, once for all later calls.

dynrefer download flant5xl
dynrefer download flant5xl --to /data/weights --part eva_vit --part tags
dynrefer download flant5xl --mirror http://mirror.example:8000
dynrefer download flant5xl --check

A broken or stopped download continues where it was when the command is repeated.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from lavis_dynrefer.config import PublishedPart
from lavis_dynrefer.errors import EXIT_BAD_INPUT, InputError, choice_problem
from lavis_dynrefer.models.weights.fetching.kept_parts import (
    FetchOptions,
    damaged_files,
    find_kept,
    free_space,
    gigabytes,
    needed,
    weights_folder,
)
from lavis_dynrefer.models.weights.fetching.part_registry import (
    register,
    registered,
    unregister,
)
from lavis_dynrefer.models.weights.fetching.transfer import OFFLINE_VARIABLES, offline_variable
from lavis_dynrefer.models.weights.places import (
    CHECKPOINT,
    describe_part,
    fetch_parts,
    files_of,
    look_up,
    model_section,
)
from lavis_dynrefer.paths import expand_home


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer download`."""
    parser.add_argument("model", help="flant5xl, vicuna7b, or the yaml of a model")
    parser.add_argument(
        "--to", type=Path, metavar="DIR", help="folder for the parts; default: in the cache"
    )
    parser.add_argument(
        "--part", action="append", metavar="NAME", help="only this part; may be repeated"
    )
    parser.add_argument(
        "--mirror",
        metavar="URL",
        help="a server that holds the files under the paths of their own addresses; for the "
        "Hugging Face hub alone, export HF_ENDPOINT",
    )
    parser.add_argument(
        "--keep-original", action="store_true", help="do not remove the published files afterwards"
    )
    parser.add_argument(
        "--accept-changed",
        action="store_true",
        help="take files whose size or checksum is not the published one",
    )
    parser.add_argument(
        "--offline", action="store_true", help="use no network: only say what is missing"
    )
    parser.add_argument(
        "--check", action="store_true", help="compare the kept files with their checksums"
    )


def run(arguments: argparse.Namespace) -> int:
    """Download; returns the exit code."""
    if arguments.offline:
        os.environ[OFFLINE_VARIABLES[0]] = "1"
    section = model_section(arguments.model)
    files = files_of(section)
    parts = _chosen(arguments, files.published)
    if not parts:
        print(f"{arguments.model} comes with this package: there is nothing to download")
        return 0
    model_type = files.model_type or ""
    told = registered(model_type)
    folder = expand_home(arguments.to).absolute() if arguments.to else weights_folder(create=False)
    if arguments.check:
        return _check(parts, told, folder)
    if not arguments.to:  # what lies elsewhere is not downloaded again
        for name in [name for name in parts if name in told and told[name].exists()]:
            print(f"{name}: {told[name]}, from `weights set` or --to")
            del parts[name]
    absent = {name: part for name, part in parts.items() if find_kept(folder, part) is None}
    _announce(parts, absent, folder)
    if absent and offline_variable() and needed(absent, folder).transfer:
        raise InputError(
            f"{', '.join(absent)}: not downloaded, because {offline_variable()} is set"
        )
    options = FetchOptions(
        mirror=arguments.mirror,
        accept_changed=arguments.accept_changed,
        keep_original=arguments.keep_original,
    )
    for name, path in fetch_parts(parts, folder, options).items():
        print(f"{name}: {path}")
        if arguments.to and model_type:
            register(model_type, name, path)
        elif name in told:
            print(f"{name}: no longer {told[name]}, which does not exist any more")
            unregister(model_type, name)
    found = look_up(section)
    if CHECKPOINT in found.absent:
        print(f"still missing: {CHECKPOINT}; {describe_part(found, CHECKPOINT)}")
        command = f"dynrefer weights set {CHECKPOINT} FILE --model {arguments.model}"
        print(f"`{command}` remembers where it is")
    return 0


def _chosen(
    arguments: argparse.Namespace, published: Mapping[str, PublishedPart]
) -> dict[str, PublishedPart]:
    """The parts to download; all that have an address, unless some are named."""
    public = {name: part for name, part in published.items() if part.files}
    for name in arguments.part or ():
        problem = choice_problem("--part", name, public)
        if name in published and problem is not None:
            problem = f"--part: {name} has no address; {published[name].page} links to it"
        if problem is not None:
            raise InputError(problem)
    return {name: public[name] for name in arguments.part or public}


def _announce(
    parts: Mapping[str, PublishedPart], absent: Mapping[str, PublishedPart], folder: Path
) -> None:
    for name, part in parts.items():
        need = needed({name: part}, folder).transfer
        state = f"{gigabytes(need)} to download from {part.at}" if name in absent else "here"
        print(f"{name}: {state}")
    if absent:
        need = needed(absent, folder)
        print(
            f"in all {gigabytes(need.transfer)} to {folder}, which takes "
            f"{gigabytes(need.disk)} meanwhile; {gigabytes(free_space(folder))} are free",
            flush=True,
        )


def _check(parts: Mapping[str, PublishedPart], told: Mapping[str, Path], folder: Path) -> int:
    """Compare checksums; returns the exit code."""
    wrong = 0
    for name, part in parts.items():
        at = told[name].parent if name in told else folder
        if name in told and told[name] != at / part.kept:
            print(f"{name}: {told[name]} is your own file, there is no checksum to compare with")
            continue
        kept = find_kept(at, part)
        damaged = damaged_files(at, part) if kept else []
        if kept is None:
            print(f"{name}: not downloaded, or not whole")
        elif damaged:
            print(f"{name}: damaged: {', '.join(damaged)}; remove it and download again")
        else:
            print(f"{name}: ok, {kept}")
        wrong += kept is None or bool(damaged)
    return EXIT_BAD_INPUT if wrong else 0
