"""Folders of drawn files, which appear when they are complete."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.paths import replace_file


def is_drawn(root: Path, name: str, manifest: Mapping[str, Any], *, what: str) -> bool:
    """Whether a folder holds what a manifest describes; False if it is new or empty.

    Args:
        root: the folder.
        name: of the file with its manifest.
        manifest: what is to be drawn, ready for json.
        what: the same in words, for the message.

    Raises:
        InputError: the folder holds something else.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    path = root / name
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else "other files"
    if found != manifest:
        raise InputError(
            f"{root} holds {found}, not {what} {manifest}; choose another folder or remove it"
        )
    return True


@contextmanager
def drawing(root: Path, folders: Sequence[str], *, cure: str = "") -> Iterator[Path]:
    """A folder to write into, which takes the place of `root` at the end.

    After an error, or when interrupted, nothing is left of it.

    Args:
        root: new or empty.
        folders: to make in it.
        cure: end of the message where it cannot be written.

    Raises:
        InputError: it cannot be written.
    """
    partial = root.with_name(root.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # of an interrupted run
    try:
        for folder in folders:
            (partial / folder).mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{root} cannot be written ({error.strerror or error}){cure}") from error
    try:
        yield partial
    except BaseException:  # also when interrupted
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if root.exists():
        root.rmdir()  # empty, see `is_drawn`
    replace_file(partial, root)
