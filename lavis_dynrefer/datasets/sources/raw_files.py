"""Reading raw annotation files and listing image folders, with errors that say what to do."""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.image_names import (
    ANY_SUFFIX,
    fold,
    folded_parts,
    name_parts,
    near_name,
    readings,
)
from lavis_dynrefer.formats.reading.text_file import decode_text
from lavis_dynrefer.images.decoding import readable_suffixes

_BETWEEN_ITEMS = re.compile(r"[\s,]*")
_DECODER = json.JSONDecoder()
_BLOCK = 1 << 22  # bytes per read; items of the largest files have some thousand

# Damaged json raises JSONDecodeError, which is a ValueError; so does a number of 5000 digits.
# Thousands of brackets raise a RecursionError.
_JSON_ERRORS = (ValueError, RecursionError)

Opener = Callable[[Path], BinaryIO]


class DatasetError(InputError):
    """A dataset cannot be read; the message names the file, the setting and the cure."""


@dataclass(frozen=True)
class RawFile:
    """A file or folder of a dataset as its own site publishes it.

    Args:
        setting: the argument of the reader and key in the yaml.
        name: usual path below the dataset's root.
        origin: where to get it.
    """

    setting: str
    name: str
    origin: str

    def error(self, problem: str) -> DatasetError:
        """The problem, followed by the setting and the cure."""
        return DatasetError(f"{problem}. Set `{self.setting}`; get the file from {self.origin}")

    def require(self, path: str | Path) -> Path:
        """The path as given.

        Raises:
            DatasetError: it does not exist.
        """
        if not Path(path).exists():
            raise self.error(f"{self.setting}: no file or folder {Path(path).absolute()}")
        return Path(path)


def read_json(path: str | Path, source: RawFile) -> dict[str, Any]:
    """A json file whose outermost value is an object.

    Raises:
        DatasetError: missing, not json, or not an object.
    """
    source.require(path)
    try:
        text = decode_text(Path(path).read_bytes(), "json")
    except (OSError, InputError) as error:
        raise _not_text(path, source, error) from error
    if text[:200].lstrip()[:1] not in ("[", "{"):
        raise source.error(f"{path} is not json, it begins with {text[:40]!r}")
    try:
        document = json.loads(text)
    except _JSON_ERRORS as error:
        raise source.error(f"{path} is damaged json ({error})") from error
    if not isinstance(document, dict):
        raise source.error(f"{path}: expected an object, got a {type(document).__name__}")
    return document


def open_binary(path: Path) -> BinaryIO:
    """The default `Opener` of the readers."""
    return path.open("rb")


def iter_json_list(
    path: str | Path, source: RawFile, opener: Opener = open_binary
) -> Iterator[Any]:
    """Yield the items of a json list one by one; the first one must be an object.

    A parsed `region_descriptions.json` takes gigabytes; this keeps a few megabytes of text and one
    item in memory.

    Args:
        path: json file.
        source: what the file is, for errors.
        opener: opens the file; a caller can pass one that shows progress.

    Raises:
        DatasetError: missing, not json, not a list of objects, cut short, or followed by more.
    """
    source.require(path)
    try:
        with opener(Path(path)) as file:
            yield from _ListReader(file, path, source).items()
    except (OSError, UnicodeDecodeError) as error:
        raise _not_text(path, source, error) from error


class _ListReader:
    """Parses a json list while it is read.

    Args:
        file: open for reading bytes.
        path: its path, for errors.
        source: what the file is, for errors.
    """

    def __init__(self, file: BinaryIO, path: str | Path, source: RawFile) -> None:
        self._file = file
        self._path = path
        self._source = source
        self._decode_bytes = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._text = ""
        self._position = 0
        self._dropped = 0  # characters of the file before `_text`
        self._at_end = False

    def items(self) -> Iterator[Any]:
        """The items, in file order."""
        if self._next_character() not in ("[", "{"):
            raise self._source.error(
                f"{self._path} is not json, it begins with {self._text[:40]!r}"
            )
        if self._next_character() != "[":
            begin = self._text[self._position : self._position + 20]
            raise self._source.error(f"{self._path}: expected a list, got {begin!r}")
        self._position += 1
        is_first = True
        while self._next_character() != "]":
            item = self._item()
            if is_first and not isinstance(item, dict):
                raise self._source.error(
                    f"{self._path}: expected a list of objects, got an item {item!r:.40}"
                )
            is_first = False
            yield item
        self._position += 1
        if self._next_character():
            rest = self._text[self._position : self._position + 20]
            raise self._source.error(f"{self._path} goes on after the end of its list: {rest!r}")

    def _item(self) -> Any:
        """The item at the current position; reads more text if needed."""
        while True:
            try:
                item, end = _DECODER.raw_decode(self._text, self._position)
            except _JSON_ERRORS as error:
                if isinstance(error, json.JSONDecodeError) and self._read_more():
                    continue
                start, end = (self._dropped + at for at in (self._position, len(self._text)))
                reason = getattr(error, "msg", error)
                raise self._source.error(
                    f"{self._path} is damaged from character {start} of {end} on ({reason}); "
                    "was the download cut short?"
                ) from error
            # A number may continue in the next block; an object cannot.
            if end < len(self._text) or isinstance(item, dict) or not self._read_more():
                self._position = end
                return item

    def _next_character(self) -> str:
        """First character of the next item or bracket, "" at the end of the file."""
        while True:
            self._position = _BETWEEN_ITEMS.match(self._text, self._position).end()  # type: ignore[union-attr]  # matches anything
            if self._position < len(self._text) or not self._read_more():
                return self._text[self._position : self._position + 1]

    def _read_more(self) -> bool:
        """Read on and drop what is parsed; False at the end of the file."""
        if self._at_end:
            return False
        block = self._file.read(max(_BLOCK, len(self._text) - self._position))
        self._at_end = not block
        self._dropped += self._position
        self._text = self._text[self._position :] + self._decode_bytes(block, final=self._at_end)
        self._position = 0
        return not self._at_end


class ImageFolder:
    """Finds images on disk with one listing per folder instead of one lookup per image.

    Args:
        root: the folder; it and its subfolders are listed on first use.
        source: what the folder is, for the error.

    Raises:
        DatasetError: there is no such folder.
    """

    def __init__(self, root: str | Path, source: RawFile) -> None:
        if not Path(root).is_dir():
            raise source.error(f"{source.setting}: no folder {Path(root).absolute()}")
        self.root = str(Path(root).absolute())
        self._source = source
        self._names: dict[str, frozenset[str]] = {}
        self._folded: dict[str, dict[str, list[str]]] = {}  # folder -> folded name -> names
        self._suffixes = readable_suffixes()
        self._spellings: dict[str, str] = {}  # path -> the other name it was found by

    def find(self, *names: str) -> str | None:
        """Absolute path of the first of these relative names that exists, else None.

        A name that does not exist as written is looked for by the rule of `formats.image_names`;
        of a name with the folders of another machine the end is enough.

        Raises:
            DatasetError: two such names have the same end, and could both be this file.
        """
        for name in names:
            folder, base = os.path.split(os.path.join(self.root, name))
            if base in self._listing(folder):
                return os.path.join(folder, base)
        for name in names:
            for reading in readings(name):
                for start in range(len(reading.parts) if reading.is_foreign else 1):
                    path = self._spelled(reading.parts[start:])
                    if path is not None:
                        return self._only(name, path)
        return None

    def near(self, name: str) -> str:
        """The end of an error about a missing file: names a file that it may be, if any."""
        folder = os.path.dirname(os.path.join(self.root, name))
        known = [*self._listing(folder), *self._listing(self.root)]
        found = near_name(name, sorted(known))
        return f"; did you mean {found!r}?" if found else ""

    def _spelled(self, parts: Sequence[str]) -> str | None:
        """The path of these folders and file, spelled as on the disk."""
        here = self.root
        for part in parts:
            if here not in self._folded:
                spellings: dict[str, list[str]] = {}
                for name in sorted(self._listing(here)):
                    spellings.setdefault(fold(name), []).append(name)
                    stem, suffix = os.path.splitext(name)
                    if suffix.lower() in self._suffixes:
                        spellings.setdefault(fold(stem + ANY_SUFFIX), []).append(name)
                self._folded[here] = spellings
            found = self._folded[here].get(fold(part), [])
            same = [name for name in found if name_parts(name) == (part,)]
            if len(same or found) != 1:
                return None
            here = os.path.join(here, (same or found)[0])
        return here if here != self.root else None

    def _only(self, name: str, path: str) -> str:
        other = self._spellings.setdefault(path, name)
        if folded_parts(other) != folded_parts(name):
            raise self._source.error(
                f"{self._source.setting}: {other!r} and {name!r} could both be {path}; "
                "write the names as they are in this folder"
            )
        return path

    def _listing(self, folder: str) -> frozenset[str]:
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(folder))
            except PermissionError as error:
                raise self._source.error(
                    f"{self._source.setting}: {folder} cannot be listed ({error})"
                ) from error
            except (OSError, ValueError):  # no such folder, or an impossible name
                self._names[folder] = frozenset()
        return self._names[folder]


def _not_text(path: str | Path, source: RawFile, error: Exception) -> DatasetError:
    archive = " (an archive? unpack it first)" if _is_archive(path) else ""
    return source.error(f"{path} cannot be read as text{archive}: {error}")


def _is_archive(path: str | Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(2) in (b"PK", b"\x1f\x8b")
    except OSError:
        return False
