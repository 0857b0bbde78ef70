"""Boxes as a file has them, and which image they belong to."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.image_result import RegionId


@dataclass
class ImageBoxes:
    """The boxes of one image, in the form of their file.

    Args:
        boxes: R rows of four numbers.
        ids: R ids; empty where the file has none.
        image_id: the image's id in the file, where it has one.
    """

    boxes: list[Sequence[float]] = field(default_factory=list)
    ids: list[RegionId] = field(default_factory=list)
    image_id: int | None = None

    def add(self, box: Sequence[float], region_id: object = None) -> None:
        """One more box; ids are kept only where every box has one."""
        if isinstance(region_id, (int, str)) and len(self.ids) == len(self.boxes):
            self.ids.append(region_id)
        else:
            self.ids.clear()
        self.boxes.append(box)


@dataclass(frozen=True)
class BoxFile:
    """A file of boxes.

    Args:
        path: the file.
        images: name of an image -> its boxes; one entry "" where the file names no image.
        format: "xyxy" or "xywh".
        normalised: as in `pixel_boxes`.
    """

    path: Path
    images: Mapping[str, ImageBoxes]
    format: str
    normalised: bool | None

    def match(self, images: Mapping[str, str]) -> dict[str, ImageBoxes]:
        """Whose boxes are whose.

        Names match where one is the end of the other: "val/1.jpg" is "/data/val/1.jpg", and of the
        two images "val/1.jpg" and "train/1.jpg" it is the first.

        Args:
            images: name of an image -> its path.

        Returns:
            Name of an image -> its boxes; images without an entry in the file are left out.

        Raises:
            ValueError: boxes could belong to several images, or an image have several entries.
        """
        if list(self.images) == [""]:
            if len(images) > 1:
                raise InputError(
                    f"{self.path} names no image, so its boxes can be those of one image only, "
                    f"got {len(images)}; write an object: image -> list of boxes"
                )
            return dict.fromkeys(images, self.images[""])
        by_base: dict[str, list[str]] = {}
        for entry in self.images:
            by_base.setdefault(_parts(entry)[-1], []).append(entry)
        owners: dict[str, str] = {}  # entry -> image
        for name, path in images.items():
            entries = _closest(name, path, by_base.get(_parts(name)[-1], []))
            if len(entries) > 1 or (entries and entries[0] in owners):
                one, other = entries if len(entries) > 1 else (name, owners[entries[0]])
                raise InputError(
                    f"{self.path}: {entries[0]!r} and {name!r} have one file name, but {one!r} and "
                    f"{other!r} are two; write the images' names with their folders"
                )
            if entries:
                owners[entries[0]] = name
        return {name: self.images[entry] for entry, name in owners.items()}


def _parts(name: str) -> tuple[str, ...]:
    """Folders and file name; equal also where two systems write an accent in different ways."""
    parts = unicodedata.normalize("NFC", name).replace("\\", "/").split("/")
    return tuple(part for part in parts if part not in ("", ".")) or ("",)


def _closest(name: str, path: str, entries: Iterable[str]) -> list[str]:
    """The entries that fit an image, of several only those with most folders in common."""
    whole, short = _parts(path), _parts(name)
    fitting: dict[int, list[str]] = {}
    for entry in entries:
        parts = _parts(entry)
        if whole[-len(parts) :] == parts:
            fitting.setdefault(len(parts), []).append(entry)
        elif parts[-len(short) :] == short:
            fitting.setdefault(len(short), []).append(entry)
    return fitting[max(fitting)][:2] if fitting else []
