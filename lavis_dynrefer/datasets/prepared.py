"""Prepared datasets: raw files converted once into tables, described by a manifest.

A prepared folder:

    manifest.json        sources with sha256, protocol, what was kept and dropped and why
    <split>/             regions.arrow, images.arrow, rejected.arrow, truth.arrow

The folder is always complete: splits are written elsewhere and moved in when finished.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel, ValidationError

from lavis_dynrefer.datasets.sources.raw_files import DatasetError, Opener, open_binary
from lavis_dynrefer.datasets.sources.region_collector import Stores
from lavis_dynrefer.datasets.table_store import TableStore, read_split
from lavis_dynrefer.formats.annotation_tools.tool_files import files_of
from lavis_dynrefer.paths import cache_dir, expand_home, replace_file
from lavis_dynrefer.structures import AttributeInfo, RegionSet

logger = logging.getLogger(__name__)
FORMAT = 4  # of the manifest and the tables
MANIFEST = "manifest.json"
# Reasons about an image or a row that is not a region; the others drop one region each.
IMAGE_REASONS = frozenset({"no_regions", "in_two_splits", "unreadable_entry", "duplicate_entry"})

Reader = Callable[[Sequence[str], Stores, Opener], Mapping[str, RegionSet]]


class _Split(BaseModel):
    """What the manifest says of a split; `dynrefer prepare` shows the counts."""

    name: str
    images: int
    regions_read: int
    regions_kept: int
    dropped: dict[str, int]
    noted: dict[str, int] = {}
    attributes: list[AttributeInfo]
    category_names: list[str]


class _State(BaseModel):
    sources: dict[str, list[int]]
    images: list[int]


class _Manifest(BaseModel):
    """Checked, not used: the manifest stays a plain mapping with everything that it holds."""

    images: str
    state: _State
    splits: dict[str, _Split]


@dataclass(frozen=True)
class RawDataset:
    """The raw files of one dataset and how they are read.

    Args:
        dataset: registered name, such as "vg_region".
        type: type of the dataset, such as "v1.2".
        protocol: label of the reports; None for the dataset's own.
        sources: setting -> raw file.
        images: the image folder.
        read: (splits, stores, opener) -> split -> regions.
        options: settings that change what is read.
    """

    dataset: str
    type: str
    protocol: str | None
    sources: Mapping[str, Path]
    images: Path
    read: Reader
    options: Mapping[str, Any] = field(default_factory=dict)

    def default_folder(self) -> Path:
        """Where it is prepared by default: a folder of the cache for each choice of files."""
        choice = [
            FORMAT,
            self.protocol,
            str(self.images.absolute()),
            {setting: str(path.absolute()) for setting, path in sorted(self.sources.items())},
        ]
        if self.options:
            choice.append(dict(self.options))
        digest = hashlib.sha256(json.dumps(choice).encode()).hexdigest()[:10]
        return cache_dir(create=False) / "prepared" / f"{self.dataset}-{self.type}-{digest}"

    def state(self) -> dict[str, Any]:
        """Fingerprint of the sizes and modification times of the files and image folders."""
        folders = [self.images, self.images / "VG_100K", self.images / "VG_100K_2"]
        return {
            "sources": {
                setting: _state_of(path) for setting, path in self.sources.items() if path.exists()
            },
            "images": [path.stat().st_mtime_ns for path in folders if path.is_dir()],
            "options": dict(self.options),
        }


def prepare(
    raw: RawDataset,
    splits: Sequence[str],
    folder: Path | None = None,
    opener: Opener = open_binary,
) -> dict[str, RegionSet]:
    """Open the splits, after converting those that are not there yet.

    Processes that prepare the same folder wait for each other; one of them converts.

    Args:
        raw: the dataset.
        splits: the splits wanted.
        folder: where to prepare; None for the cache.
        opener: opens the raw files; a caller can pass one that shows progress.

    Raises:
        DatasetError: a raw file is missing or invalid, or the folder is not writable.
    """
    folder = folder or raw.default_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.parent / f".{folder.name}.lock")
        lock.acquire()
    except OSError as error:
        raise DatasetError(
            f"{folder} cannot be written ({error}); set DYNREFER_CACHE to a folder of your own"
        ) from error
    try:
        manifest = _manifest_in_use(raw, folder)
        missing = [split for split in splits if split not in manifest["splits"]]
        if missing:
            _convert(raw, missing, folder, manifest, opener)
    finally:
        lock.release()
    return {split: _open(folder, manifest, split, raw.images) for split in splits}


def open_current(raw: RawDataset, splits: Sequence[str]) -> dict[str, RegionSet]:
    """Those of the splits that the cache has, made from the raw files as they are now."""
    folder = raw.default_folder()
    try:
        manifest = read_manifest(folder)
        if not _is_current(manifest, raw.state()):
            return {}
        known = [split for split in splits if split in manifest["splits"]]
        return {split: _open(folder, manifest, split, raw.images) for split in known}
    except DatasetError:  # not prepared, or by another version
        return {}


def open_prepared(
    folder: str | Path, splits: Sequence[str], images: str | Path | None = None
) -> dict[str, RegionSet]:
    """Open splits of a prepared folder, without the raw files.

    Args:
        folder: holds `manifest.json`.
        splits: the splits wanted.
        images: the image folder; None for the one in the manifest.

    Raises:
        DatasetError: the folder is not prepared, or lacks a split.
    """
    manifest = read_manifest(folder)
    absent = [split for split in splits if split not in manifest["splits"]]
    if absent:
        raise DatasetError(
            f"prepared: {folder} has the splits {list(manifest['splits'])}, not {absent}; "
            "run `dynrefer prepare` with them"
        )
    where = expand_home(images) if images else prepared_images(folder, manifest)
    if not where.is_dir():
        logger.warning("%s", absent_images(folder, where))
    return {split: _open(Path(folder), manifest, split, where.absolute()) for split in splits}


def prepared_images(folder: str | Path, manifest: Mapping[str, Any]) -> Path:
    """The image folder of a prepared folder: where it was, or as far from here if both moved."""
    there, way = Path(manifest["images"]), manifest.get("images_from_here")
    if there.is_dir() or not isinstance(way, str):
        return there
    moved = Path(os.path.normpath(expand_home(folder).absolute() / way))
    return moved if moved.is_dir() else there


def absent_images(folder: str | Path, images: Path) -> str:
    """What to do about a prepared folder without its images."""
    return (
        f"prepared: the images of {folder} should be in {images}, and there is no such folder; "
        "name the folder they are in as an absolute path in `images.storage`"
    )


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a prepared folder.

    Raises:
        DatasetError: it is missing, damaged or of another version.
    """
    path = expand_home(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"prepared: no {path}; run `dynrefer prepare` first") from error
    except (ValueError, OSError, RecursionError) as error:
        raise DatasetError(f"prepared: {path} is damaged ({error}); prepare again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DatasetError(f"prepared: {path} is of another version; prepare again")
    try:
        _Manifest.model_validate(manifest)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DatasetError(
            f"prepared: {path} is damaged ({place}: {first['msg']}); prepare again"
        ) from error
    return manifest


def _manifest_in_use(raw: RawDataset, folder: Path) -> dict[str, Any]:
    """The manifest of the folder, or the start of a new one if the raw files have changed."""
    state = raw.state()
    if (folder / MANIFEST).exists():
        try:
            manifest = read_manifest(folder)
        except DatasetError as error:
            logger.info("%s; converting again", error)
        else:
            if _is_current(manifest, state):
                return manifest
            logger.info("%s: the raw files or the images have changed, converting again", folder)
        (folder / MANIFEST).unlink()
    return {
        "format": FORMAT,
        "dataset": raw.dataset,
        "type": raw.type,
        "protocol": raw.protocol,
        "images": str(raw.images.absolute()),
        "images_from_here": _relative(raw.images.absolute(), folder.absolute()),
        "state": state,
        "sources": {},
        "splits": {},
    }


def _relative(path: Path, start: Path) -> str | None:
    """With forward slashes; None for another drive of Windows."""
    try:
        return Path(os.path.relpath(path, start)).as_posix()
    except ValueError:
        return None


def _is_current(manifest: Mapping[str, Any], state: Mapping[str, Any]) -> bool:
    """Whether a folder was made from the raw files as they are now; files may be gone."""
    present = {name: manifest["state"]["sources"].get(name) for name in state["sources"]}
    same_images = state["images"] in (manifest["state"]["images"], [])
    same_options = manifest["state"].get("options", {}) == state["options"]
    return present == state["sources"] and same_images and same_options


def _convert(
    raw: RawDataset,
    splits: Sequence[str],
    folder: Path,
    manifest: dict[str, Any],
    opener: Opener,
) -> None:
    """Convert the raw files, then move the tables in and write the manifest."""
    unfinished = folder / ".unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)

    def stores(split: str) -> TableStore:
        (unfinished / split).mkdir(parents=True)
        return TableStore(unfinished / split, raw.images.absolute())

    try:
        found = raw.read(splits, stores, opener)
        described = {split: _describe(region_set) for split, region_set in found.items()}
        del found
        manifest["sources"] = {
            setting: _describe_file(path, opener) for setting, path in raw.sources.items()
        }
        for split, description in described.items():
            _move_in(unfinished / split, folder / split)
            manifest["splits"][split] = description
        text = json.dumps(manifest, indent=2, ensure_ascii=False)
        (unfinished / MANIFEST).write_text(text, encoding="utf-8")
        _move_in(unfinished / MANIFEST, folder / MANIFEST)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not any(folder.iterdir()):
            folder.rmdir()


def _move_in(source: Path, target: Path) -> None:
    """Put a finished file or folder in its place.

    Raises:
        DatasetError: what is there cannot be replaced; Windows protects tables that are open.
    """
    try:
        if target.is_dir():
            shutil.rmtree(target)
        replace_file(source, target)
    except OSError as error:
        raise DatasetError(
            f"{target} cannot be replaced ({error}); is it in use? End the program that reads it, "
            "or prepare into another folder"
        ) from error


def _describe(region_set: RegionSet) -> dict[str, Any]:
    rejected = region_set.rejection_counts()
    dropped = sum(n for reason, n in rejected.items() if reason not in IMAGE_REASONS)
    return {
        "name": region_set.name,
        "images": len(region_set.images),
        "regions_read": len(region_set.regions) + dropped,
        "regions_kept": len(region_set.regions),
        "dropped": rejected,
        "noted": dict(region_set.noted),
        "graded_on": len(region_set.truth_regions) or None,
        "attributes": [asdict(attribute) for attribute in region_set.attributes],
        "category_names": list(region_set.category_names),
    }


def _state_of(source: Path) -> list[int]:
    """Size and time of change; of several files the sum, the latest, and their number."""
    states = [path.stat() for path in files_of(source)]
    state = [
        sum(one.st_size for one in states),
        max((one.st_mtime_ns for one in states), default=0),
    ]
    return state if len(states) == 1 else [*state, len(states)]


def _describe_file(source: Path, opener: Opener) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    for path in files_of(source):
        with opener(path) as file:
            for block in iter(lambda file=file: file.read(1 << 20), b""):
                digest.update(block)
        size += path.stat().st_size
    return {"path": str(source.absolute()), "bytes": size, "sha256": digest.hexdigest()}


def _open(folder: Path, manifest: Mapping[str, Any], split: str, images: Path) -> RegionSet:
    described = manifest["splits"][split]
    try:
        return read_split(
            expand_home(folder) / split,
            images.absolute(),
            name=described["name"],
            split=split,
            attributes=tuple(AttributeInfo(**row) for row in described["attributes"]),
            category_names=tuple(described["category_names"]),
            noted=described.get("noted", {}),
        )
    except ValueError as error:
        raise DatasetError(str(error)) from error
