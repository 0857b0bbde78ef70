"""The output folder of `dynrefer predict`: its files, and whether a run may continue there."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lavis_dynrefer import __version__
from lavis_dynrefer.cli.predict.ranks.rank_folder import RANKS, parts_of
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats import FORMATS, ROWS, ResultLog
from lavis_dynrefer.formats.json_stream import cannot_write, replace_bytes

SETTINGS = "run.json"
FAILURES = "failures.json"
_LOCK = ".lock"
_DEVICES = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³]) *(\.|$)", re.IGNORECASE)  # of Windows
_MAX_LENGTH = 60  # characters of a file name; each may take 4 of the 255 bytes allowed


@dataclass(frozen=True)
class ImageFiles:
    """A folder with one file per image; written only if `wanted`.

    Args:
        folder: created with the first file.
        suffix: of the files.
        wanted: whether to write them.
        clashing: names of images as of `clashing_names`.
    """

    folder: Path
    suffix: str
    wanted: bool
    clashing: Container[str] = ()

    def path(self, image: str) -> Path:
        """The file of the image of this name."""
        return self.folder / f"{file_stem(image, unique=image in self.clashing)}{self.suffix}"

    def write(self, image: str, content: bytes) -> None:
        """Write the file of an image; it appears when it is complete."""
        replace_bytes(self.path(image), content)


@contextmanager
def open_log(folder: Path, settings: Mapping[str, Any], *, resume: bool) -> Iterator[ResultLog]:
    """The answers in a folder, to continue or to start; no other run may write there meanwhile.

    What the processes of an earlier run have not joined is added.

    Args:
        folder: new, empty, or of an earlier run.
        settings: what the answers depend on besides images and boxes, as plain json.
        resume: keep existing answers.

    Raises:
        InputError: the folder holds other files, or answers of other settings, another run is
            writing there, or it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output {folder}: expected a folder, got a file")
    known = folder / SETTINGS
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    others = names - {_LOCK, RANKS, f"{SETTINGS}.partial"}  # which a killed run leaves
    if others and not known.is_file():
        raise InputError(f"--output {folder} holds other files; name a new or empty folder")
    settings = json.loads(json.dumps(settings))
    about = {"lavis_dynrefer": __version__, "settings": settings}
    with locked(folder):
        parts = parts_of(folder)
        if not resume:
            for name in (name for format in FORMATS.values() for name in format.files):
                (folder / name).unlink(missing_ok=True)
        elif parts or ((folder / ROWS).is_file() and (folder / ROWS).stat().st_size):
            check_settings(folder, read_settings(known), settings)
        replace_bytes(known, (json.dumps(about, indent=1) + "\n").encode())
        log = ResultLog(folder / ROWS)
        join_parts(log, parts if resume else ())
        shutil.rmtree(folder / RANKS, ignore_errors=True)
        yield log


def join_parts(log: ResultLog, parts: Iterable[Path]) -> None:
    """Move the answers of several processes into one log; interrupted, it can be repeated."""
    for part in parts:
        log.extend(ResultLog(part))
        part.unlink()


def is_output_folder(folder: Path) -> bool:
    """Whether a folder holds the answers of a run."""
    return (folder / SETTINGS).is_file() and (folder / ROWS).is_file()


def outdated(log: ResultLog, written: Iterable[Path]) -> list[str]:
    """Names of files of other formats that lack the newest answers; an earlier run wrote them."""
    folder, current = log.path.parent, {log.path, *written}
    paths = (folder / name for format in FORMATS.values() for name in format.files)
    newest = log.path.stat().st_mtime_ns
    return [
        path.relative_to(folder).as_posix()
        for path in paths
        if path not in current and path.is_file() and path.stat().st_mtime_ns < newest
    ]


def keep_failures(failures: Mapping[str, str], folder: Path) -> None:
    """Write image -> reason as json; without failures there is no file."""
    if failures:
        replace_bytes(folder / FAILURES, (json.dumps(failures, indent=1) + "\n").encode())
    else:
        (folder / FAILURES).unlink(missing_ok=True)


def file_stem(name: str, *, unique: bool = False) -> str:
    """A file name for an image of any name: valid on every system, not too long, without folders.

    Args:
        name: of the image.
        unique: also differ from the names of images that differ in case only.

    >>> file_stem("my house.png"), file_stem("../a.png").startswith("a.png-")
    ('my house.png', True)
    """
    stem = re.sub(r"[^\w. -]+", "_", name.encode("utf-8", "replace").decode()).strip("._ -")
    stem = stem[:_MAX_LENGTH]
    if _DEVICES.match(stem):
        stem = f"_{stem}"
    if stem == name and not unique:
        return stem
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{stem}-{digest}"


def clashing_names(names: Iterable[str]) -> set[str]:
    """Names whose files would be one where case does not count, as on Windows and macOS.

    >>> sorted(clashing_names(["a.png", "A.png", "b.png"]))
    ['A.png', 'a.png']
    """
    by_stem: dict[str, list[str]] = {}
    for name in names:
        by_stem.setdefault(file_stem(name).casefold(), []).append(name)
    return {name for group in by_stem.values() if len(group) > 1 for name in group}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder; the system frees it when this process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    lock = FileLock(str(folder / _LOCK), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"--output {folder}: another run is writing there; wait until it ends, or name another "
            "folder"
        ) from error
    except (NotImplementedError, OSError):  # a file system without locks
        yield
        return
    try:
        yield
    finally:
        # While it is held: later it could be another run's. Windows keeps open files.
        with suppress(OSError):
            (folder / _LOCK).unlink()
        lock.release()


def check_settings(folder: Path, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that answers in a folder were made with the same settings.

    Raises:
        InputError: names those that differ.
    """
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


def read_settings(path: Path) -> dict[str, Any]:
    """The settings that a run kept.

    Raises:
        InputError: the file is damaged.
    """
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["settings"]
    except (KeyError, TypeError, OSError, ValueError) as error:
        raise InputError(
            f"{path} is damaged; start over with --no-resume, or name another folder"
        ) from error
    return settings
