"""Walks through folders of images; what is skipped is counted, with its first name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from lavis_dynrefer.cli.predict.output_folder import is_output_folder
from lavis_dynrefer.images import readable_suffixes
from lavis_dynrefer.images.decoding import HEIF_SUFFIXES

# Image files that are not looked for.
_OTHER = frozenset(
    f".{name}"
    for names in (
        "apng avif dds dib eps exr hdr icns ico j2k jpe jpf jpx jxl pcx psd sgi svg xcf",
        "3fr arw cr2 cr3 crw dng erf kdc mrw nef nrw orf pef raf raw rw2 sr2 srf srw x3f",
    )
    for name in names.split()
)

# Folders in which systems keep copies and previews.
_SYSTEM = frozenset(("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information"))

_HIDDEN = "hidden and system files and folders"
_SUBFOLDERS = "subfolders (--recursive includes them)"
_LOOPS = "links to folders that are searched anyway"
_OUTPUTS = "folders with answers of dynrefer"
_NEEDS_HEIC = "HEIC images (to read them: pip install 'lavis_dynrefer[heic]')"
_UNREAD = "images of other kinds (convert them to PNG or TIFF)"


@cache
def _image_suffixes() -> frozenset[str]:
    return readable_suffixes().union(HEIF_SUFFIXES, _OTHER)


def has_image_suffix(path: Path) -> bool:
    """Whether a file calls itself an image, readable or not."""
    return path.suffix.lower() in _image_suffixes()


class FolderWalk:
    """Finds the images in folders.

    Args:
        recursive: include subfolders. Links to folders are followed, each folder once.
        leave_out: a folder to skip.
    """

    def __init__(self, recursive: bool, leave_out: Path | None = None) -> None:
        self._recursive = recursive
        self._leave_out = leave_out and os.path.realpath(leave_out)
        self._suffixes = readable_suffixes()
        self._passed: dict[str, list[str]] = {}  # what -> names

    def images(self, top: Path) -> list[Path]:
        """The images in a folder, sorted; files come before subfolders.

        Raises:
            OSError: a folder cannot be read.
        """
        found: list[Path] = []
        seen = {os.path.realpath(top)}
        waiting, links = [top], list[Path]()
        while waiting or links:
            # Links last, so that images have the names of the folders they are in.
            here = waiting.pop(0) if waiting else links.pop(0)
            if here != top and not self._is_new(here, top, seen):
                continue
            files, folders = self._inside(here, top)
            found += files
            for folder in folders:
                (links if _is_link(folder) else waiting).append(folder)
        return sorted(found, key=lambda path: _files_first(path.relative_to(top)))

    def notes(self) -> list[str]:
        """A sentence for each kind of what was skipped."""
        return [
            f"skipped {what}: {len(names):,}, first {names[0]}"
            for what, names in self._passed.items()
        ]

    def excuse(self) -> str:
        """The end of an error message about a folder without images."""
        kinds = f", which end in {', '.join(sorted(self._suffixes))}"
        return kinds + "".join(f"; {note}" for note in self.notes())

    def _is_new(self, folder: Path, top: Path, seen: set[str]) -> bool:
        real = os.path.realpath(folder)
        if real in seen or Path(real) in Path(os.path.realpath(top)).parents:
            self._pass(_LOOPS, folder, top)
            return False
        seen.add(real)
        return True

    def _inside(self, here: Path, top: Path) -> tuple[list[Path], list[Path]]:
        """Images and folders to search in a folder."""
        files, folders = [], []
        for path in sorted(here.iterdir()):
            is_folder = path.is_dir()
            if not is_folder and not has_image_suffix(path):
                continue
            if path.name.startswith(".") or path.name in _SYSTEM:
                self._pass(_HIDDEN, path, top)
            elif is_folder:
                folders += self._searched(path, top)
            elif path.suffix.lower() in self._suffixes:
                files.append(path)
            else:
                what = _NEEDS_HEIC if path.suffix.lower() in HEIF_SUFFIXES else _UNREAD
                self._pass(what, path, top)
        return files, folders

    def _searched(self, folder: Path, top: Path) -> Iterator[Path]:
        if os.path.realpath(folder) == self._leave_out:
            return
        if is_output_folder(folder):
            self._pass(_OUTPUTS, folder, top)
        elif self._recursive:
            yield folder
        else:
            self._pass(_SUBFOLDERS, folder, top)

    def _pass(self, what: str, path: Path, top: Path) -> None:
        self._passed.setdefault(what, []).append(path.relative_to(top).as_posix())


def _is_link(folder: Path) -> bool:
    """Whether a folder lies elsewhere: a symbolic link, or a junction of Windows."""
    real, parent = os.path.realpath(folder), os.path.realpath(folder.parent)
    return os.path.normcase(real) != os.path.normcase(os.path.join(parent, folder.name))


def _files_first(path: Path) -> tuple[tuple[bool, str], ...]:
    *folders, name = path.parts
    return (*((True, folder) for folder in folders), (False, name))
