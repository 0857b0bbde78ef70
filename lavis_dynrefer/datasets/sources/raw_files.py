"""Raw annotation files and picture folders, read so that every problem is named."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BETWEEN_ITEMS = re.compile(r"[\s,]*")


class DatasetError(ValueError):
    """A dataset cannot be read; the message names the file, the setting and the cure."""


@dataclass(frozen=True)
class RawFile:
    """A file or folder that a dataset's own site hands out.

    Args:
        setting: the argument of the reader, which is also the key in the yaml.
        name: usual name, relative to the dataset's root.
        origin: where to get it.
    """

    setting: str
    name: str
    origin: str

    def error(self, problem: str) -> DatasetError:
        """The problem, followed by the setting and the cure."""
        return DatasetError(f"{problem}. Set `{self.setting}`; get the file from {self.origin}")

    def require(self, path: str | Path) -> Path:
        """The path as given, if something is there.

        Raises:
            DatasetError: nothing is.
        """
        if not Path(path).exists():
            raise self.error(f"{self.setting}: no file or folder {Path(path).absolute()}")
        return Path(path)


def read_json(path: str | Path, source: RawFile) -> dict[str, Any]:
    """A json file whose outermost value is an object.

    Raises:
        DatasetError: missing, not json, or not an object.
    """
    text = _read_text(path, source)
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise source.error(f"{path} is damaged json ({error})") from error
    if not isinstance(document, dict):
        raise source.error(f"{path}: expected an object, got a {type(document).__name__}")
    return document


def iter_json_list(path: str | Path, source: RawFile) -> Iterator[dict[str, Any]]:
    """The objects of a json list, one after the other.

    A parsed `region_descriptions.json` takes gigabytes; this holds its text and one item at a time.

    Raises:
        DatasetError: missing, not json, not a list of objects, or cut short.
    """
    text = _read_text(path, source)
    position = _BETWEEN_ITEMS.match(text).end()  # type: ignore[union-attr]  # matches anything
    if text[position : position + 1] != "[":
        raise source.error(f"{path}: expected a list, got {text[position : position + 20]!r}")
    decode = json.JSONDecoder().raw_decode
    position += 1
    while True:
        position = _BETWEEN_ITEMS.match(text, position).end()  # type: ignore[union-attr]
        if text[position : position + 1] == "]":
            return
        try:
            item, position = decode(text, position)
        except json.JSONDecodeError as error:
            raise source.error(
                f"{path} is damaged from character {position} of {len(text)} on ({error.msg}); "
                "was the download cut short?"
            ) from error
        if not isinstance(item, dict):
            raise source.error(f"{path}: expected a list of objects, got an item {item!r:.40}")
        yield item


class PictureFolder:
    """Which pictures are on disk: one listing per folder instead of one question per picture.

    Args:
        root: the folder; it and its sub-folders are listed when first asked about.
        source: what the folder is, for the error.

    Raises:
        DatasetError: there is no such folder.
    """

    def __init__(self, root: str | Path, source: RawFile) -> None:
        if not Path(root).is_dir():
            raise source.error(f"{source.setting}: no folder {Path(root).absolute()}")
        self.root = str(Path(root).absolute())
        self._names: dict[str, frozenset[str]] = {}

    def find(self, *names: str) -> str | None:
        """Absolute path of the first of these relative names that exists, else None."""
        for name in names:
            folder, base = os.path.split(os.path.join(self.root, name))
            if base in self._listing(folder):
                return os.path.join(folder, base)
        return None

    def _listing(self, folder: str) -> frozenset[str]:
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(folder))
            except (FileNotFoundError, NotADirectoryError):
                self._names[folder] = frozenset()
        return self._names[folder]


def _read_text(path: str | Path, source: RawFile) -> str:
    source.require(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        archive = " (an archive? unpack it first)" if _is_archive(path) else ""
        raise source.error(f"{path} cannot be read as text{archive}: {error}") from error
    if text[:200].lstrip()[:1] not in ("[", "{"):
        raise source.error(f"{path} is not json, it begins with {text[:40]!r}")
    return text


def _is_archive(path: str | Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(2) in (b"PK", b"\x1f\x8b")
    except OSError:
        return False
