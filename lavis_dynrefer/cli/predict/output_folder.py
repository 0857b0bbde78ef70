"""The output folder of `dynrefer predict`: its files, and whether a run may continue there."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis_dynrefer import __version__
from lavis_dynrefer.errors import InputError, choice_problem
from lavis_dynrefer.formats import FORMATS, ROWS, ResultLog

SETTINGS = "run.json"
FAILURES = "failures.json"
_MAX_LENGTH = 60  # characters of a file name; each may take 4 of the 255 bytes allowed


def check_formats(formats: Sequence[str], *, to_stdout: bool) -> None:
    """Refuse formats that do not exist, or cannot be written to standard output.

    Raises:
        InputError: names them.
    """
    for name in formats:
        problem = choice_problem("--format", name, FORMATS)
        if problem:
            raise InputError(problem)
    if to_stdout and sum(len(FORMATS[name].files) for name in formats) > 1:
        raise InputError(
            f"--format {','.join(formats)}: without --output expected one format of one file"
        )


@dataclass(frozen=True)
class ImageFiles:
    """A folder with one file per image; written only if `wanted`."""

    folder: Path
    suffix: str
    wanted: bool

    def path(self, image: str) -> Path:
        """The file of the image of this name."""
        return self.folder / f"{file_stem(image)}{self.suffix}"

    def write(self, image: str, content: bytes) -> None:
        """Write the file of an image; it appears when it is complete."""
        self.folder.mkdir(exist_ok=True)
        path = self.path(image)
        unfinished = path.with_suffix(".part")
        try:
            unfinished.write_bytes(content)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)


def open_log(folder: Path, settings: Mapping[str, Any], *, resume: bool) -> ResultLog:
    """The answers in a folder, to continue or to start.

    Args:
        folder: new, empty, or of an earlier run.
        settings: what the answers depend on besides images and boxes, as plain json.
        resume: keep existing answers.

    Raises:
        InputError: the folder holds other files, or answers of other settings.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output {folder}: expected a folder, got a file")
    known = folder / SETTINGS
    if folder.is_dir() and any(folder.iterdir()) and not known.is_file():
        raise InputError(f"--output {folder} holds other files; name a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    settings = json.loads(json.dumps(settings))
    if not resume:
        for name in (name for format in FORMATS.values() for name in format.files):
            (folder / name).unlink(missing_ok=True)
    elif (folder / ROWS).is_file() and (folder / ROWS).stat().st_size:
        _check_settings(folder, _read_settings(known), settings)
    about = {"lavis_dynrefer": __version__, "settings": settings}
    known.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return ResultLog(folder / ROWS)


def keep_failures(failures: Mapping[str, str], folder: Path) -> None:
    """Write image -> reason as json; without failures there is no file."""
    if failures:
        text = json.dumps(failures, indent=1) + "\n"
        (folder / FAILURES).write_text(text, encoding="utf-8")
    else:
        (folder / FAILURES).unlink(missing_ok=True)


def file_stem(name: str) -> str:
    """A file name for an image of any name: unique, not too long, without folders.

    >>> file_stem("my house.png"), file_stem("../a.png").startswith("a.png-")
    ('my house.png', True)
    """
    stem = re.sub(r"[^\w. -]+", "_", name.encode("utf-8", "replace").decode()).strip("._ -")
    stem = stem[:_MAX_LENGTH]
    if stem == name:
        return stem
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{stem}-{digest}"


def _check_settings(folder: Path, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changes = [
        f"{key} was {earlier.get(key)!r:.60}, is {now[key]!r:.60}"
        for key in now
        if earlier.get(key) != now[key]
    ]
    if changes:
        raise InputError(
            f"--output {folder} holds answers made with other settings: {'; '.join(changes)}. "
            "Name another folder, or start over with --no-resume"
        )


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["settings"]
    except (KeyError, TypeError, OSError, ValueError) as error:
        raise InputError(
            f"{path} is damaged; start over with --no-resume, or name another folder"
        ) from error
    return settings
