"""Published parts of a model: downloaded, reduced to what the model uses, and kept.

A part is whole when its record is there, which is written last: NAME.json beside the file or folder
NAME, with the size and the sha256 of every file, published and kept.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout

from lavis_dynrefer.config import PublishedFile, PublishedPart
from lavis_dynrefer.errors import DynReferError, InputError
from lavis_dynrefer.models.weights.conversion import RULES, convert
from lavis_dynrefer.models.weights.fetching.transfer import HUB, Expected, download, mirrored
from lavis_dynrefer.models.weights.tensor_reading import CheckpointError
from lavis_dynrefer.paths import cache_dir, replace_file

_BLOCK = 1 << 20
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
_PATIENCE = 5  # seconds
_SLACK = 100 << 20  # bytes left free on the disk
Published = Mapping[str, PublishedPart]  # part -> its place

logger = logging.getLogger(__name__)


class FetchOptions(NamedTuple):
    """How parts are fetched.

    Args:
        mirror: address of a server that holds the files, see `transfer.mirrored`.
        accept_changed: take files whose size or checksum is not the published one.
        keep_original: do not remove the published files after their conversion.
        started: called with the name of each file; returns what counts its bytes.
    """

    mirror: str | None = None
    accept_changed: bool = False
    keep_original: bool = False
    started: Callable[[str], Callable[[int], None]] = lambda name: lambda count: None


class Need(NamedTuple):
    """What fetching takes, in bytes: to transfer, and on the disk at its fullest."""

    transfer: int
    disk: int


class Record(NamedTuple):
    """What is written down of a kept part: whence it came, and what its files must be."""

    urls: list[str]
    files: dict[Path, Expected]


def weights_folder(*, create: bool = True) -> Path:
    """Where parts are kept unless another folder is named."""
    return cache_dir(create=create) / "weights"


def find_kept(folder: Path, part: PublishedPart) -> Path | None:
    """The kept file or folder of a part; None if it is not there, not whole, or another one."""
    record = _read_record(folder, part)
    if record is None or record.urls != _urls(part):
        return None
    for path, wanted in record.files.items():
        if not path.is_file() or path.stat().st_size != wanted.size:
            return None
    return folder / part.kept


def damaged_files(folder: Path, part: PublishedPart) -> list[str]:
    """The kept files of a part whose checksum is no longer that of its record."""
    record = _read_record(folder, part)
    files = record.files if record else {}
    return [str(path) for path, wanted in files.items() if _digest(path) != wanted.sha256]


def is_local(part: PublishedPart) -> bool:
    """Whether other programs have downloaded all published files of a part to this machine."""
    return _local_source(part) is not None


def needed(parts: Published, folder: Path, *, keep_original: bool = False) -> Need:
    """What fetching these parts takes; what has arrived already is not counted."""
    transfer = disk = kept = 0
    for part in parts.values():
        missing = 0
        if not is_local(part):
            arrived = sum(map(_size, _incoming(folder, part).glob("*")))
            missing = max(sum(item.bytes for item in part.files) - arrived, 0)
        transfer += missing
        kept += part.about
        disk = max(disk, kept + missing)
        kept += missing if keep_original else 0
    return Need(transfer, disk)


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):  # another process has renamed it
        return path.stat().st_size
    return 0


def free_space(folder: Path) -> int:
    """Bytes free on the disk of a folder, which need not exist yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def check_space(parts: Published, folder: Path, *, keep_original: bool = False) -> None:
    """Refuse to fetch what does not fit.

    Raises:
        InputError: the disk has too little space.
    """
    disk, free = needed(parts, folder, keep_original=keep_original).disk, free_space(folder)
    if disk + _SLACK > free:
        raise InputError(
            f"{', '.join(parts)}: {gigabytes(disk)} are needed in {folder}, whose disk has "
            f"{gigabytes(free)} free; make space, or choose another folder with --to or "
            "DYNREFER_CACHE"
        )


def gigabytes(size: int) -> str:
    """A number of bytes for people.

    >>> gigabytes(11_400_000_000), gigabytes(41904)
    ('11.40 GB', '0.04 MB')
    """
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"


def fetch(
    name: str,
    part: PublishedPart,
    folder: Path,
    options: FetchOptions = FetchOptions(),  # noqa: B008  immutable
) -> Path:
    """Download a part unless it is kept here; of several processes one does, the others wait.

    Args:
        name: of the part, such as "eva_vit".
        part: its place; it has files.
        folder: where it is kept; created.
        options: see there.

    Returns:
        The kept file or folder.

    Raises:
        TransferError: a file cannot be downloaded.
        CheckpointError: a file is not that of this part.
        InputError: the disk is full, or the folder cannot be written to.
    """
    found = find_kept(folder, part)
    if found is not None:
        return found
    with _writable(folder), only_process(folder / f".{part.kept}.lock"):
        found = find_kept(folder, part)
        if found is not None:
            return found
        incoming = _incoming(folder, part)
        source = _local_source(part)
        if source is None:
            incoming.mkdir(exist_ok=True)
            published = [_fetch_file(part, item, incoming, options) for item in part.files]
            source = incoming if len(part.files) > 1 else incoming / part.files[0].name
        else:
            logger.info("%s: taking the copy that is on this machine, %s", name, source)
            published = [{"url": url, "taken_from": str(source)} for url in _urls(part)]
        target = _keep(name, part, source, folder)
        _write_record(name, part, folder, published)
        if not options.keep_original:
            _remove(incoming)
        return target


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Create a folder; while entered, what the system refuses there is said with the cure.

    Raises:
        InputError: it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if isinstance(error, DynReferError) or error.errno not in _REFUSED:
            raise
        raise InputError(
            f"cannot write to {folder}: {error.strerror}; choose another folder with --to or "
            "DYNREFER_CACHE"
        ) from error


@contextmanager
def only_process(path: Path) -> Iterator[None]:
    """Hold a lock file; says so where another process holds it for long."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        logger.warning("Waiting for another process, which holds %s", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch_file(
    part: PublishedPart, item: PublishedFile, incoming: Path, options: FetchOptions
) -> dict[str, Any]:
    """Download one file of a part; its sha256 is written beside it, as `sha256sum` does."""
    path, url = incoming / item.name, f"{part.at}/{item.name}"
    beside = path.with_name(f"{path.name}.sha256")
    arrived = options.started(item.name)
    digest = _digest(path)
    if digest is not None:  # it arrived whole; its conversion was broken off
        arrived(path.stat().st_size)
    else:
        exact = not options.accept_changed
        expected = Expected(item.size, item.sha256) if exact else Expected()
        digest = download(mirrored(url, options.mirror), path, expected=expected, arrived=arrived)
    beside.write_text(f"{digest}  {path.name}\n", encoding="utf-8")
    return {"url": url, "size": path.stat().st_size, "sha256": digest}


def _keep(name: str, part: PublishedPart, source: Path, folder: Path) -> Path:
    """Convert what has been downloaded, in a folder of its own, and move it to its place."""
    target = folder / part.kept
    workshop = folder / f".converting-{part.kept}"
    _remove(workshop)  # of a process that was killed
    workshop.mkdir()
    try:
        if name in RULES:
            convert(name, source, workshop / part.kept)
        else:
            shutil.copyfile(source, workshop / part.kept)
        if target.is_dir():
            _remove(target)
        replace_file(workshop / part.kept, target)
    except InputError as error:  # not this part: the next attempt must download again
        _remove(_incoming(folder, part))
        raise CheckpointError(f"{name}, from {part.at}: {error}") from error
    finally:
        _remove(workshop)
    return target


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _incoming(folder: Path, part: PublishedPart) -> Path:
    """Where the published files of a part are until they are converted."""
    return folder / f"{part.kept}.original"


def _urls(part: PublishedPart) -> list[str]:
    return [f"{part.at}/{item.name}" for item in part.files]


def _record_path(folder: Path, part: PublishedPart) -> Path:
    return folder / f"{part.kept}.json"


def _read_record(folder: Path, part: PublishedPart) -> Record | None:
    """What is known of a kept part; None without a readable record."""
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        content = json.loads(_record_path(folder, part).read_text(encoding="utf-8"))
        urls = [str(item["url"]) for item in content["from"]]
        files = {
            folder / name: Expected(int(file["size"]), str(file["sha256"]))
            for name, file in content["files"].items()
        }
        return Record(urls, files)
    return None


def _write_record(
    name: str, part: PublishedPart, folder: Path, published: list[dict[str, Any]]
) -> None:
    target = folder / part.kept
    paths = sorted(target.rglob("*")) if target.is_dir() else [target]
    files = {
        path.relative_to(folder).as_posix(): {
            "size": path.stat().st_size,
            "sha256": _digest(path),
        }
        for path in paths
        if path.is_file()
    }
    path = _record_path(folder, part)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    record = {"part": name, "from": published, "files": files}
    partial.write_text(json.dumps(record, indent=1), encoding="utf-8")
    replace_file(partial, path)


def _digest(path: Path) -> str | None:
    """The sha256 of a file in hex; None if it is not there."""
    hasher = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for block in iter(lambda: file.read(_BLOCK), b""):
                hasher.update(block)
    except FileNotFoundError:
        return None
    return hasher.hexdigest()


def _local_source(part: PublishedPart) -> Path | None:
    """The file or folder where LAVIS or transformers have put the published files, if all."""
    paths = [_local_file(url) for url in _urls(part)]
    for path, item in zip(paths, part.files):
        if path is None or (item.size is not None and path.stat().st_size != item.size):
            return None
    folders = {path.parent for path in paths if path}
    if len(folders) != 1:
        return None
    return paths[0] if len(paths) == 1 else folders.pop()


def _local_file(url: str) -> Path | None:
    if url.startswith(f"{HUB}/"):
        from huggingface_hub import try_to_load_from_cache

        owner, name, _, revision, *rest = url[len(HUB) + 1 :].split("/")
        path = try_to_load_from_cache(f"{owner}/{name}", "/".join(rest), revision=revision)
        return Path(path) if isinstance(path, str) else None
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])  # as LAVIS
    return path if path.is_file() and path.suffix == ".pth" else None
