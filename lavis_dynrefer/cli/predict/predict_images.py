"""Finds the images of a command line and gives each a name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from lavis_dynrefer.errors import InputError

SUFFIXES = frozenset(
    f".{name}"
    for names in ("avif bmp gif jfif jp2 jpeg jpg pbm", "pgm png pnm ppm tga tif tiff webp")
    for name in names.split()
)


def find_images(
    paths: Sequence[Path], *, recursive: bool, leave_out: Path | None = None
) -> dict[str, Path]:
    """The given images, and those in the given folders in alphabetical order.

    Args:
        paths: files, with any suffix, and folders.
        recursive: include subfolders; links to folders are not followed.
        leave_out: a folder to skip, such as the output folder.

    Returns:
        Name of an image -> absolute path; the file may be missing. A name is relative to the
        folder the image was found in, with forward slashes.

    Raises:
        InputError: none of the paths exists, or a folder has no image.
        OSError: a folder cannot be read.
    """
    if not any(path.exists() for path in paths):
        raise InputError(f"no image or folder {', '.join(map(str, paths))}")
    skipped = None if leave_out is None else Path(os.path.abspath(leave_out))
    names: dict[Path, str] = {}
    for given in paths:
        path = Path(os.path.abspath(given))
        if not path.is_dir():
            names.setdefault(path, path.name)
            continue
        inside = list(_walk(path, recursive, skipped))
        if not inside:
            cure = "" if recursive else "; --recursive includes its subfolders"
            raise InputError(f"{given}: no file that ends in {', '.join(sorted(SUFFIXES))}{cure}")
        for file in inside:
            names.setdefault(file, file.relative_to(path).as_posix())
    if len(set(names.values())) < len(names):  # two folders have a 1.jpg
        top = os.path.commonpath([path.parent for path in names])
        names = {path: path.relative_to(top).as_posix() for path in names}
    return {name: path for path, name in names.items()}


def _walk(folder: Path, recursive: bool, leave_out: Path | None) -> Iterator[Path]:
    for here, folders, files in os.walk(folder, onerror=_stop):
        kept = [name for name in folders if Path(here, name) != leave_out]
        folders[:] = sorted(kept) if recursive else []
        for name in sorted(files):
            if Path(name).suffix.lower() in SUFFIXES:
                yield Path(here, name)


def _stop(error: OSError) -> None:
    raise error
