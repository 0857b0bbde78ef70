"""Reading of files written by users, and checks for common mistakes in them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lavis_dynrefer.datasets.sources.box_fit import BoxFit
from lavis_dynrefer.datasets.sources.raw_files import DatasetError, RawFile
from lavis_dynrefer.errors import InputError, MissingFileError
from lavis_dynrefer.formats.annotation_tools.layout import Layout
from lavis_dynrefer.formats.annotation_tools.tool_files import read_layout
from lavis_dynrefer.formats.reading.box_units import FULL_SIDE, MANY_OUTSIDE, NEARLY_ALL
from lavis_dynrefer.formats.reading.coco_rows import entry_name, one_caption_each, whole_ids
from lavis_dynrefer.formats.reading.strict_values import Row

logger = logging.getLogger(__name__)

GUIDE = "docs/train_on_your_data.md"
MAX_OUTSIDE = 0.5  # fraction of boxes outside that is always an error
MAX_REPEATED = 0.05  # fraction of annotations that may repeat an id


class UserFile(RawFile):
    """A file written by the user; errors refer to the guide instead of a site."""

    def error(self, problem: str) -> DatasetError:
        """The problem, followed by the guide."""
        return DatasetError(f"{problem}. {GUIDE} describes the file")


def read_annotations(path: str | Path, source: RawFile, units: str | None) -> Layout:
    """Read a file or folder; ids become numbers, and each annotation has one caption.

    Args:
        path: of the file, or of a folder of a tool's files.
        source: what it is, for errors.
        units: what the user says the boxes are in.

    Raises:
        DatasetError: missing, damaged, of no known tool, or in other units than `units`.
    """
    try:
        layout = read_layout(path)
    except MissingFileError as error:
        raise source.error(
            f"{source.setting}: no file or folder {Path(path).absolute()}"
        ) from error
    except InputError as error:
        raise source.error(f"{path}: {error}") from error
    except OSError as error:
        raise source.error(f"{path} cannot be read: {error}") from error
    if layout.units is not None and units not in (None, layout.units):
        raise source.error(f"{path}: files of {layout.tool} are in {layout.units}, not in {units}")
    rows = layout.document["annotations"]
    try:
        layout.faults.require(len(rows) if isinstance(rows, list) else 1)
    except InputError as error:
        raise source.error(f"{path}: {error}") from error
    document = one_caption_each(whole_ids(layout.document))
    return replace(layout, document=document, units=units or layout.units)


def rows_of(document: Row, key: str, source: RawFile) -> list[dict[str, Any]]:
    """A list of objects that the document must have.

    Raises:
        DatasetError: it is missing or empty.
    """
    rows = document.get(key)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise source.error(
            f"{source.name}: expected COCO's layout with a list of objects {key!r}, "
            f"got an object with {sorted(document)[:10]}"
        )
    if not rows:
        raise source.error(f"{source.name}: the list {key!r} is empty")
    return rows


def require_some(rows: Sequence[Row], keys: Sequence[str], why: str, source: RawFile) -> None:
    """Refuse annotations if none of them has one of the keys.

    Args:
        rows: the annotations.
        keys: one of them must be there.
        why: what the keys are for.
        source: the file, for errors.

    Raises:
        DatasetError: no annotation has any.
    """
    if any(row.get(key) not in (None, "", [], {}) for row in rows for key in keys):
        return
    present = sorted({key for row in rows[:1000] for key in row})
    raise source.error(
        f"{source.name}: none of {len(rows)} annotations has {' or '.join(map(repr, keys))} {why}; "
        f"they have the keys {present}"
    )


def check_ids(rows: Sequence[Row], images: Sequence[Row], source: RawFile) -> None:
    """Refuse ambiguous ids; a few repeated annotations are left to the collector.

    Raises:
        DatasetError: an image id has two files, or more than `MAX_REPEATED` of the annotations
            have the id of an earlier one.
    """
    names: dict[Any, Any] = {}
    for image in images:
        try:
            name = entry_name(image)
        except InputError:  # named where the image is needed
            continue
        if names.setdefault(str(image.get("id")), name) != name:
            found = f"{names[str(image.get('id'))]!r} and {name!r}"
            raise source.error(f"{source.name}: image id {image.get('id')!r} means {found}")
    ids = [str(row["id"]) for row in rows if "id" in row]
    repeated = len(ids) - len(set(ids))
    if repeated > MAX_REPEATED * len(rows):
        raise source.error(
            f"{source.name}: {repeated} of {len(rows)} annotations have the id of another, for "
            f"example id {repeated_names(ids)[0]}; number them: `for number, row in "
            "enumerate(annotations): row['id'] = number`"
        )


def repeated_names(names: Sequence[str]) -> list[str]:
    """Names that occur more than once, most frequent first."""
    return [name for name, count in Counter(names).most_common() if count > 1]


def check_boxes(boxes: BoxFit, source: RawFile, units: str | None = None) -> None:
    """Refuse boxes of another format.

    Args:
        boxes: all boxes of the file, in pixels.
        source: the file, for errors.
        units: what the user says they are in; None: nothing, so that they must not look relative.

    Raises:
        DatasetError: the boxes are corners, or seem to be fractions, percent or thousandths, or
            most leave their images.
    """
    if boxes.total and boxes.fractions == boxes.total and units is None:
        raise source.error(_doubt(boxes, source, "fraction"))
    found = f"{source.name}: as x, y, width, height {boxes.outside} of {boxes.total} boxes "
    found += f"leave their images, for example {boxes.example}"
    if boxes.outside > MANY_OUTSIDE * boxes.total and boxes.corners >= NEARLY_ALL * boxes.total:
        raise source.error(
            f"{found}; they seem to be corners x1, y1, x2, y2: write [x1, y1, x2 - x1, y2 - y1]"
        )
    doubt = None if units else boxes.units.doubt()
    if boxes.outside > MAX_OUTSIDE * boxes.total:
        other = f", or are they {doubt} (`build_info.box_units: {doubt}`)" if doubt else ""
        raise source.error(f"{found}; were they drawn on images of another size{other}?")
    if doubt:
        raise source.error(_doubt(boxes, source, doubt))


def _doubt(boxes: BoxFit, source: RawFile, unit: str) -> str:
    many = "fractions" if unit == "fraction" else unit
    return (
        f"{source.name}: no coordinate of its {boxes.total} boxes exceeds {FULL_SIDE[unit]:.0f}; "
        f"they seem to be {many} of the image, expected pixels. Set `build_info.box_units: {unit}` "
        "if they are, `box_units: pixels` if not"
    )


class SizeCheck:
    """Counts the images whose size is not the one that the file gives."""

    def __init__(self) -> None:
        self.total = self.wrong = 0
        self.example = ""

    def add(self, image_id: int, problem: str | None) -> None:
        """Count one image with a size in the file; see `size_problem`."""
        self.total += 1
        if problem is not None:
            self.wrong += 1
            self.example = self.example or f"image {image_id}: {problem}"

    def finish(self, source: RawFile) -> None:
        """Refuse a file if most sizes differ; the regions of a few images are left out.

        Raises:
            DatasetError: most sizes differ.
        """
        found = f"{source.name}: {self.wrong} of {self.total} images have another size than the "
        found += f"file gives, for example {self.example}"
        if 2 * self.wrong > self.total:
            raise source.error(found)
        if self.wrong:
            logger.warning(found)
