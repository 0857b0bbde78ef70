"""COCO's layout in memory: what every annotation tool's file is read into."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.image_names import ANY_SUFFIX, fold, name_parts, without_suffix
from lavis_dynrefer.formats.reading.faults import Faults
from lavis_dynrefer.formats.reading.records import Size
from lavis_dynrefer.formats.reading.strict_values import (
    finite_number,
    four_numbers,
    shown,
    text_of,
)
from lavis_dynrefer.images.boxes import xyxy_to_xywh
from lavis_dynrefer.structures import Box

UNREADABLE = "regions that cannot be read"


@dataclass
class Layout:
    """The annotations of a file.

    Args:
        tool: what wrote the file, for messages.
        document: with `images`, `annotations` and perhaps `categories` and `attributes`; `bbox` is
            x, y, width, height.
        units: of `bbox`, one of `UNITS`; None if the file does not say.
        faults: what of the file cannot be used.
    """

    tool: str
    document: Mapping[str, Any]
    units: str | None = None
    faults: Faults = field(default_factory=Faults)


class LayoutBuilder:
    """Builds a `Layout`, image by image.

    Args:
        tool: what wrote the file, for messages.
        units: of the boxes that are added; None if the file does not say.
    """

    def __init__(self, tool: str, units: str | None = None) -> None:
        self.tool = tool
        self.units = units
        self.faults = Faults()
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._categories: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._annotations)

    def add_image(
        self, name: str, size: Size | None = None, *, folder: str = "", given_name: str = ""
    ) -> int:
        """Add an image, with or without regions.

        Args:
            name: of the file, which may be in any folder.
            size: width and height in pixels, if the file gives them.
            folder: where it lies if images are in folders as their annotations are.
            given_name: the whole name, with folders of any machine, of which `name` is the end.

        Returns:
            Its id.
        """
        row: dict[str, Any] = {"id": len(self._images) + 1, "file_name": text_of(name)}
        if folder:
            row["folder"] = text_of(folder)
        if given_name not in ("", name):
            row["given_name"] = text_of(given_name)
        if size is not None:
            row["width"], row["height"] = size
        self._images.append(row)
        return len(self._images)

    def add_region(
        self,
        image_id: int,
        corners: Any,
        *,
        region_id: int | str | None = None,
        category: str | None = None,
        **labels: Any,
    ) -> None:
        """Add a region.

        Args:
            image_id: as `add_image` returned it.
            corners: x1, y1, x2, y2 in any order of the corners.
            region_id: by default the number of the region in the file.
            category: its name.
            labels: `caption`, `tags`, `attributes`; empty ones are left out.

        Raises:
            InputError: not four finite numbers.
        """
        x1, y1, x2, y2 = four_numbers(corners, "a box of two corners")
        box = min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
        row = {
            "id": len(self._annotations) + 1 if region_id is None else region_id,
            "image_id": image_id,
            "bbox": list(xyxy_to_xywh(box)),
            **{key: value for key, value in labels.items() if value},
        }
        if category is not None:
            row["category_id"] = self.category_id(category)
        self._annotations.append(row)

    def add_row(self, image_id: int, row: Any) -> None:
        """Add a region as COCO writes it.

        Args:
            image_id: as `add_image` returned it.
            row: an annotation; whoever reads the layout checks what is in it.

        Raises:
            InputError: it is no object.
        """
        if not isinstance(row, Mapping):
            raise InputError(f"expected an object, got {shown(row)}")
        self._annotations.append({**row, "image_id": image_id})

    def category_id(self, name: str) -> int:
        """The id of a category; names are numbered as they come."""
        return self._categories.setdefault(text_of(name), len(self._categories) + 1)

    def finish(self) -> Layout:
        """The annotations of all images added.

        Raises:
            InputError: there are faults, and nothing else.
        """
        self.faults.require(len(self._images))
        ids = [str(row.get("id")) for row in self._annotations]
        if len(set(ids)) < len(ids):  # counted anew in each file
            for number, row in enumerate(self._annotations, 1):
                row["id"] = number
        document = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": [
                {"id": number, "name": name} for name, number in self._categories.items()
            ],
        }
        return Layout(self.tool, document, self.units, self.faults)


def read_points(values: Any) -> list[tuple[float, float]]:
    """Points [[x, y], ...].

    Raises:
        InputError: not at least two points of finite numbers.
    """
    try:
        points = [(finite_number(point[0]), finite_number(point[1])) for point in values]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"expected points of x and y, got {shown(values)}") from error
    if len(points) < 2:
        raise InputError(f"expected at least two points, got {shown(values)}")
    return points


def extent(points: Sequence[tuple[float, float]]) -> Box:
    """The box around points, as two corners."""
    xs, ys = zip(*points)
    return min(xs), min(ys), max(xs), max(ys)


def distinct_names(named: Sequence[tuple[str, str]], stems: Sequence[str]) -> list[str]:
    """A name for the image of each file of a folder, as short as it can be.

    Args:
        named: folder of each file, relative to the whole, and the name that it gives its image.
        stems: the path of each file without its suffix, for files that give names twice.

    Returns:
        The file names alone, if they differ; else the stems of the files, if those differ; else
        both with their folders, which may be those of another machine.
    """
    bases = [name_parts(name)[-1] for _, name in named]
    if _differ(bases):
        return bases
    short = [name_parts(stem)[-1] + ANY_SUFFIX for stem in stems]
    if _differ(short):
        return short
    return [f"/{folder}/{base}" for (folder, _), base in zip(named, bases)]


def _differ(names: Sequence[str]) -> bool:
    counts = Counter(fold(without_suffix(name)) for name in names)
    return max(counts.values(), default=1) == 1
