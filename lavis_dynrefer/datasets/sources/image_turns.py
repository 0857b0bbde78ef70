"""Images that viewers show turned: boxes drawn in a viewer do not fit their stored pixels."""

from __future__ import annotations

import logging
import os

from lavis_dynrefer.datasets.sources.box_fit import BoxFit
from lavis_dynrefer.datasets.sources.raw_files import RawFile
from lavis_dynrefer.datasets.sources.region_collector import RegionCollector
from lavis_dynrefer.images.decoding import (
    ROTATED,
    SIDEWAYS,
    exif_orientation,
    open_file,
    stored_size,
)
from lavis_dynrefer.structures import Box, ImageRecord

logger = logging.getLogger(__name__)

TURNED = "exif_rotated"  # noted
_MANY_OUTSIDE = 0.05  # fraction of boxes that leave their images; a few always do


class ImageTurns:
    """Counts images with an EXIF rotation, and how the boxes of those on their side fit."""

    def __init__(self) -> None:
        self.total = 0  # images measured
        self.turned = 0
        self._example = ""
        self._sideways: set[int] = set()
        self._stored, self._shown = BoxFit(), BoxFit()

    def measure(self, image_id: int, path: str | os.PathLike[str]) -> tuple[int, int]:
        """Width and height of an image as stored, from its header; raises `IMAGE_ERRORS`."""
        with open_file(path) as image:
            size, orientation = stored_size(image), exif_orientation(image)
        self.total += 1
        if orientation in ROTATED:
            self.turned += 1
            self._example = self._example or f"{path}, {size[0]} x {size[1]} pixels as stored"
        if orientation in SIDEWAYS:
            self._sideways.add(image_id)
        return size

    def add_box(self, box: Box, image: ImageRecord) -> None:
        """Count one xyxy box, in pixels."""
        if image.image_id in self._sideways:
            self._stored.add(box, image)
            turned = ImageRecord(image.image_id, image.path, image.height, image.width)
            self._shown.add(box, turned)

    def finish(self, source: RawFile, collector: RegionCollector) -> None:
        """Note the images, and refuse boxes that were drawn on what a viewer shows.

        Raises:
            DatasetError: boxes leave images that lie on their side, and all fit the upright ones.
        """
        if not self.turned:
            return
        found = (
            f"{self.turned} of {self.total} images measured have an EXIF rotation, which is not "
            f"applied: boxes refer to the stored pixels; for example {self._example}"
        )
        cure = "Save the images rotated (exiftran, or PIL.ImageOps.exif_transpose)"
        stored, shown = self._stored, self._shown
        if stored.outside > _MANY_OUTSIDE * stored.total and not shown.outside:
            raise source.error(
                f"{source.name}: {stored.outside} of {stored.total} boxes extend beyond images "
                f"with an EXIF rotation, and all fit them when rotated. {found}. {cure}"
            )
        collector.note(TURNED, self.turned)
        logger.warning("%s: %s. %s if the boxes were drawn in a viewer", source.name, found, cure)


def turned_images(number: int) -> str:
    """A warning about images that were noted when a split was read."""
    return (
        f"{number:,} images have an EXIF rotation, which is not applied: boxes refer to the stored "
        "pixels; save the images rotated if the boxes were drawn in a viewer"
    )
