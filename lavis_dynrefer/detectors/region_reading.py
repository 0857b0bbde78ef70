"""Opens an image and checks the regions that a caller gives: boxes, masks, or points."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from lavis_dynrefer.detectors.sam import load_segmenter
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images import ImageInput, open_image
from lavis_dynrefer.views.regions import Regions, checked_regions


def read_regions(
    image: ImageInput,
    boxes: Any = None,
    *,
    masks: Sequence[Any] | None = None,
    points: Any = None,
    sam: str | Path | None = None,
    format: str = "xyxy",
    normalised: bool | None = None,
    device: torch.device,
) -> tuple[Image.Image, Regions]:
    """Open an image and check its regions; any number of threads may do so at once.

    Args:
        image: see `RegionPredictor.predict`, also for the other arguments.
        device: of SAM.

    Returns:
        The image as RGB, and its regions.

    Raises:
        InputError, MissingFileError, MissingPackageError: see `RegionPredictor.predict`.
    """
    if (boxes is None and masks is None) == (points is None):
        raise InputError("expected either boxes or masks or points, or masks with their boxes")
    if (points is None) != (sam is None):
        raise InputError("points need sam, a folder of SAM's weights, and sam needs points")
    if boxes is None and (format != "xyxy" or normalised is not None):
        raise InputError(
            "format and normalised are about boxes; leave them out with masks and points"
        )
    opened = open_image(image)
    if points is not None:
        masks = load_segmenter(os.fspath(sam or ""), device)(opened, points)
    regions = checked_regions(boxes, masks, opened.size, format=format, normalised=normalised)
    return opened, regions
