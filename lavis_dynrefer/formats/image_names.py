"""One rule for the names that annotation files give to images.

The name in a file and the name on the disk come from different systems. These are the same name:
both slashes; "./" in front; accents in one or two characters (NFC, NFD); "%20" for a blank; the
address of an annotation tool or of a bucket, which ends in the name; the eight hexadecimal digits
that Label Studio puts in front of uploads; and, if no other name fits, upper and lower case. Names
without a suffix are read as "NAME.*", a file of any suffix, where the format has no suffixes.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from lavis_dynrefer.errors import InputError

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)  # more than one letter: no drive
_DRIVE = re.compile(r"[a-z]:[/\\]", re.IGNORECASE)
_UPLOAD_MARK = re.compile(r"[0-9a-f]{8}-(?=.)")
_MEDIA = ("data", "media")  # folders of Label Studio's server
_LOCAL_FILES = "?d="  # of Label Studio; the path of a file below the server's document root
ANY_SUFFIX = ".*"
_MOST_COMPARED = 20_000  # names, for a hint in an error


class Reading(NamedTuple):
    """One meaning of a name.

    Args:
        parts: folders and file name, as NFC.
        is_foreign: its first folders are those of another machine.
    """

    parts: tuple[str, ...]
    is_foreign: bool


def name_parts(name: str) -> tuple[str, ...]:
    r"""Folders and file name, with slashes and accents normalised; never empty.

    >>> name_parts(".\\val\\cafe\u0301.jpg")
    ('val', 'café.jpg')
    """
    parts = unicodedata.normalize("NFC", name).replace("\\", "/").split("/")
    return tuple(part for part in parts if part not in ("", ".")) or ("",)


def readings(name: str) -> Iterator[Reading]:
    """What a name may mean, the most literal first.

    >>> [reading.parts for reading in readings("/data/local-files/?d=a%20b/1.jpg")][1]
    ('a b', '1.jpg')
    >>> [reading.parts for reading in readings("upload/4/0a1b2c3d-x.jpg")][1]
    ('upload', '4', 'x.jpg')
    """
    seen = set()
    for text, is_foreign in _texts(name):
        parts = name_parts(text)
        unmarked = (*parts[:-1], _UPLOAD_MARK.sub("", parts[-1], count=1))
        for found in (parts, unmarked):
            if found not in seen:
                seen.add(found)
                yield Reading(found, is_foreign or ".." in found)


def fold(text: str) -> str:
    """The form in which names are equal that differ by case or accents only."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def without_suffix(name: str) -> str:
    """A file name without its suffix.

    >>> without_suffix("a.b.jpg"), without_suffix("a.*"), without_suffix("a")
    ('a.b', 'a', 'a')
    """
    return name.rpartition(".")[0] or name


def folded_parts(name: str) -> tuple[str, ...]:
    """`name_parts`, each as `fold` makes it."""
    return tuple(map(fold, name_parts(name)))


def match_names(entries: Iterable[str], images: Mapping[str, str]) -> dict[str, str]:
    """Find the entry of each image: the names of a file, matched with images on the disk.

    Names match if one is the end of the other: "val/1.jpg" is "/data/val/1.jpg". Of several
    matching entries the one with the most folders in common counts. A name as written comes
    before its other readings, and these before names that differ by case.

    Args:
        entries: names in the file.
        images: image name -> path.

    Returns:
        Image name -> entry, in the order of the images that have one.

    Raises:
        InputError: an entry matches several images, or several entries match one image.
    """
    entries = list(entries)
    owners: dict[str, str] = {}  # entry -> image
    matched: dict[str, str] = {}
    for spelling, of_images in _LEVELS:
        by_base: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        for entry in entries:
            if entry not in owners:
                for parts in spelling(entry):
                    by_base.setdefault(parts[-1], []).append((parts, entry))
        taken: dict[str, str] = {}
        for name, path in images.items() if by_base else ():
            if name in matched:
                continue
            found = _closest(of_images(name)[0], of_images(path)[0], by_base)
            if len(found) > 1 or (found and found[0] in taken):
                one, other = found if len(found) > 1 else (name, taken[found[0]])
                raise InputError(
                    f"{found[0]!r} and {name!r} have the same file name, but "
                    f"{one!r} and {other!r} are two; write the images' names with their folders"
                )
            if found:
                taken[found[0]] = name
        owners.update(taken)
        matched.update({name: entry for entry, name in taken.items()})
    return {name: matched[name] for name in images if name in matched}


def near_name(name: str, known: Iterable[str]) -> str | None:
    """The most similar of some names, for an error message; None if none is similar.

    >>> near_name("train/1.jpg", ["2.png", "1.jpg"]), near_name("1.jpeg", ["1.jpg", "7.jpg"])
    ('1.jpg', '1.jpg')
    """
    listed = [text for text, _ in zip(known, range(_MOST_COMPARED))]
    base = fold(name_parts(name)[-1])
    bases = {fold(name_parts(text)[-1]): text for text in reversed(listed)}
    if base in bases:
        return bases[base]
    stems = {without_suffix(key): text for key, text in bases.items()}
    stem = without_suffix(base)
    if stem in stems:
        return stems[stem]
    close = difflib.get_close_matches(base, list(bases), n=1, cutoff=0.8)
    return bases[close[0]] if close else None


def _texts(name: str) -> Iterator[tuple[str, bool]]:
    """A name, and what is left of it without an address; whether its folders are foreign."""
    parts = name_parts(name)
    from_server = any(one in _MEDIA and two == "upload" for one, two in zip(parts, parts[1:]))
    is_foreign = from_server or name[:1] in ("/", "\\") or bool(_DRIVE.match(name))
    is_address = bool(_ADDRESS.match(name))
    yield name, is_foreign or is_address
    if _LOCAL_FILES in name or is_address:
        try:
            address = urlsplit(name)
        except ValueError:  # a bracket that is not closed
            return
        for path in parse_qs(address.query).get("d", []):
            yield path, True
        if is_address:
            yield unquote(address.path), True
    if "%" in name:
        yield unquote(name), is_foreign


def _as_written(name: str) -> list[tuple[str, ...]]:
    return [name_parts(name)]


def _as_read(name: str) -> list[tuple[str, ...]]:
    return [reading.parts for reading in readings(name)]


def _as_folded(name: str) -> list[tuple[str, ...]]:
    return list(dict.fromkeys(tuple(map(fold, parts)) for parts in _as_read(name)))


def _as_stems(name: str) -> list[tuple[str, ...]]:
    return [(*parts[:-1], without_suffix(parts[-1])) for parts in _as_folded(name)]


def _any_suffix(name: str) -> list[tuple[str, ...]]:
    return _as_stems(name) if name.endswith(ANY_SUFFIX) else []


# How entries are spelled, and images.
_LEVELS = (
    (_as_written, _as_written),
    (_as_read, _as_read),
    (_as_folded, _as_folded),
    (_any_suffix, _as_stems),
)


def _closest(
    short: tuple[str, ...],
    whole: tuple[str, ...],
    by_base: Mapping[str, list[tuple[tuple[str, ...], str]]],
) -> list[str]:
    """The matching entries with the most folders in common, at most two."""
    matching: dict[int, dict[str, None]] = {}
    for parts, entry in by_base.get(short[-1], ()):
        if whole[-len(parts) :] == parts:
            matching.setdefault(len(parts), {})[entry] = None
        elif parts[-len(short) :] == short:
            matching.setdefault(len(short), {})[entry] = None
    return list(matching[max(matching)])[:2] if matching else []
