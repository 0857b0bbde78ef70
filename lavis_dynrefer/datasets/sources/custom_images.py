"""The images of a user's own json: found, measured where it gives no size, and counted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from lavis_dynrefer.datasets.sources.annotation_rows import Row, rows_by_id, shown, side_length
from lavis_dynrefer.datasets.sources.collector import RegionCollector
from lavis_dynrefer.datasets.sources.custom_checks import Size, SizeCheck
from lavis_dynrefer.datasets.sources.raw_files import ImageFolder, RawFile
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images.opening import IMAGE_ERRORS
from lavis_dynrefer.structures import ImageRecord

LOOKED_AT = 50  # images whose size is compared with the json


class ImageProblem(Exception):
    """Why the regions of an image are rejected.

    Args:
        reason: short machine name, as in `Rejection`.
        detail: one sentence for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class OwnImages:
    """The images that a json lists.

    Args:
        rows: its `images`.
        folder: what `file_name` is relative to.
        collector: is told about entries that are of no use.
        source: what the json is, for errors.

    Raises:
        DatasetError: not one entry has an id.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        folder: ImageFolder,
        collector: RegionCollector,
        source: RawFile,
    ) -> None:
        self._folder = folder
        self._collector = collector
        self._rows = rows_by_id(rows, "image", source, [collector])
        self._found: dict[int, ImageRecord] = {}
        self._asked: set[int] = set()
        self._sizes = SizeCheck()

    def find(self, image_id: int) -> ImageRecord:
        """An image by its id.

        Raises:
            ValueError: `images` does not list it.
            ImageProblem: its file is missing, or has to be measured and is no image.
        """
        if image_id not in self._rows:
            raise InputError(f"image_id {image_id} is not listed in 'images'")
        self._asked.add(image_id)
        if image_id not in self._found:
            self._found[image_id] = self._record(image_id, self._rows[image_id])
        return self._found[image_id]

    def finish(self, path: str | Path, source: RawFile) -> None:
        """Count the images that nobody asked for; `path` is the json, for the error.

        Raises:
            DatasetError: most of the files looked at have another size than the json says.
        """
        for image_id in self._rows:
            if image_id not in self._asked:
                detail = f"image {image_id} has no readable annotation"
                self._collector.leave_out("no_regions", detail, image_id)
        self._sizes.finish(path, source)

    def _record(self, image_id: int, row: Row) -> ImageRecord:
        name = row.get("file_name")
        path = self._folder.find(name) if isinstance(name, str) else None
        if path is None:
            detail = f"no file {Path(self._folder.root, str(name))}" if name else "no file_name"
            raise ImageProblem("missing_image", f"image {image_id}: {detail}")
        size = _annotated_size(row)
        if size is None:
            try:
                size = _measure(path)
            except IMAGE_ERRORS as error:
                detail = f"image {image_id}: {error}"
                raise ImageProblem("unreadable_image", detail) from error
        elif self._sizes.total < LOOKED_AT:
            self._compare(image_id, path, size)
        return ImageRecord(image_id, path, *size)

    def _compare(self, image_id: int, path: str, size: Size) -> None:
        try:
            actual = _measure(path)
        except IMAGE_ERRORS:
            return  # found again where the image is needed, and `on_error` decides
        self._sizes.add(image_id, size, actual)


def _annotated_size(row: Row) -> Size | None:
    """Width and height in pixels, where the json gives both.

    Raises:
        ImageProblem: what it gives is no size.
    """
    sides = row.get("width"), row.get("height")
    if None in sides:
        return None
    try:
        return side_length(sides[0]), side_length(sides[1])
    except ValueError as error:
        raise ImageProblem("no_size", f"image {shown(row)}: {error}") from error


def _measure(path: str) -> Size:
    """Width and height in pixels from the header of a file."""
    with Image.open(path) as image:
        width, height = image.size
    return width, height
