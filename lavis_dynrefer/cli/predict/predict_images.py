"""Finds the images of a command line and gives each a name."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from lavis_dynrefer.cli.predict.folder_walk import FolderWalk, has_image_suffix
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.paths import expand_home


def find_images(
    paths: Sequence[Path], *, recursive: bool, leave_out: Path | None = None
) -> tuple[dict[str, Path], list[str]]:
    """The given images, and those in the given folders in alphabetical order.

    Args:
        paths: files, with any suffix, folders, and patterns such as "photos/**/*.jpg", which some
            shells do not expand. A path that exists is no pattern.
        recursive: include subfolders, those behind links as well.
        leave_out: a folder to skip, such as the output folder.

    Returns:
        Name of an image -> absolute path; the file may be missing. A name is relative to the
        folder the image was found in, with forward slashes. And sentences about what was passed
        over.

    Raises:
        InputError: none of the paths exists, or a folder has no image.
        OSError: a folder cannot be read.
    """
    walk = FolderWalk(recursive, leave_out)
    names: dict[Path, str] = {}
    for given in _expanded(paths):
        path = Path(os.path.abspath(given))
        if not path.is_dir():
            names.setdefault(path, path.name)
            continue
        inside = walk.images(path)
        if not inside:
            raise InputError(f"{given}: no images in this folder{walk.excuse()}")
        for file in inside:
            names.setdefault(file, file.relative_to(path).as_posix())
    if len(set(names.values())) < len(names):  # two folders have a 1.jpg
        try:
            top = os.path.commonpath([path.parent for path in names])
        except ValueError:  # several drives of Windows
            names = {path: path.as_posix() for path in names}
        else:
            names = {path: path.relative_to(top).as_posix() for path in names}
    return {name: path for path, name in names.items()}, walk.notes()


def _expanded(paths: Sequence[Path]) -> list[Path]:
    """The paths, with the matches of patterns in their place.

    Raises:
        InputError: nothing exists or matches.
    """
    found: list[Path] = []
    for path in paths:
        path = path if os.path.lexists(path) else expand_home(path)
        found += _matches(path) or [path]
    if not any(map(os.path.lexists, found)):
        raise InputError(f"no image or folder {', '.join(map(str, paths))}")
    return found


def _matches(path: Path) -> list[Path]:
    """What a pattern matches: files, of those in a mixed folder the images; else folders."""
    pattern = str(path)
    if os.path.lexists(path) or not glob.has_magic(pattern):
        return []
    matches = sorted(map(Path, glob.glob(pattern, recursive=True)))
    files = [match for match in matches if not match.is_dir()]
    if glob.has_magic(path.suffix) or not path.suffix:
        files = [match for match in files if has_image_suffix(match)]
    return files or [match for match in matches if match.is_dir()]
