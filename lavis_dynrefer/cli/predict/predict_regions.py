"""Which regions of an image are described: given boxes, or what a detector finds."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from PIL import Image
from torch import Tensor

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats import read_box_file
from lavis_dynrefer.formats.region_boxes import ImageBoxes
from lavis_dynrefer.images import pixel_boxes

Detector = Callable[[Image.Image], Tensor]  # boxes (R, 4), xyxy in pixels
_OPTIONS = {
    'format="xywh"': "--box-format xywh",
    'format="xyxy"': "--box-format xyxy",
    "normalised=True": "--normalised",
    "normalised=False": "--no-normalised",
}


@dataclass(frozen=True)
class RegionFinder:
    """Finds the regions of images; may be shared by threads.

    Args:
        entries: name of an image -> its boxes.
        format: of these boxes.
        normalised: see `pixel_boxes`.
        detect: finds boxes where there are no entries.
    """

    entries: Mapping[str, ImageBoxes] = field(default_factory=dict)
    format: str = "xyxy"
    normalised: bool | None = None
    detect: Detector | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, name: str, image: Image.Image) -> Tensor:
        """The regions of an image: (R, 4) checked boxes, xyxy in pixels.

        Raises:
            InputError: boxes or points that do not fit the image.
        """
        if self.detect is None:
            return self.given(name, image.size)
        with self._lock:  # a detector uses all cores by itself
            boxes = self.detect(image)
        return pixel_boxes(boxes, image.size, normalised=False)

    def given(self, name: str, size: Sequence[int]) -> Tensor:
        """The boxes that are given for an image of this width and height, checked."""
        boxes = self.entries[name].boxes
        try:
            return pixel_boxes(boxes, size, format=self.format, normalised=self.normalised)
        except InputError as error:
            message = str(error)
            for argument, option in _OPTIONS.items():
                message = message.replace(argument, option)
            raise InputError(message) from error


def check_region_options(arguments: argparse.Namespace) -> None:
    """Refuse options about regions that do not go together.

    Raises:
        InputError: names them.
    """
    if arguments.proposals and arguments.proposal_weights is None:
        raise InputError("--proposals rpn needs --proposal-weights, a weight file of yours")
    if arguments.proposal_weights and not arguments.proposals:
        raise InputError("--proposal-weights goes with --proposals rpn")
    if bool(arguments.point) != (arguments.sam is not None):
        raise InputError("--point needs --sam, a folder of SAM weights, and --sam needs --point")
    if arguments.images_json and not arguments.boxes:
        raise InputError("--images-json goes with --boxes")
    has_format = arguments.box_format is not None or arguments.normalised is not None
    if has_format and not (arguments.box or arguments.boxes):
        raise InputError("--box-format and --normalised go with --box or --boxes")


def region_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the regions depend on besides boxes, as plain json."""
    proposals = points = None
    if arguments.proposal_weights:
        proposals = [str(arguments.proposal_weights.absolute()), arguments.proposal_count]
    if arguments.sam:
        points = [arguments.point, str(arguments.sam.absolute())]
    return {"proposals": proposals, "points": points}


def region_finder(
    arguments: argparse.Namespace, images: Mapping[str, Path]
) -> tuple[RegionFinder, Mapping[str, Path], list[str]]:
    """The finder, the images that have regions, and notes about the others.

    Raises:
        InputError: an invalid file of boxes or weights, or boxes of other images only.
        MissingFileError: a file does not exist.
        MissingPackageError: points, and the installed transformers has no SAM.
    """
    if arguments.boxes:
        return _from_file(arguments, images)
    if arguments.whole_image:
        whole = ImageBoxes(boxes=[(0, 0, 1, 1)])
        return RegionFinder(dict.fromkeys(images, whole), normalised=True), images, []
    if arguments.box:
        entries = dict.fromkeys(images, ImageBoxes(boxes=arguments.box))
        format = arguments.box_format or "xyxy"
        return RegionFinder(entries, format, arguments.normalised), images, []
    return RegionFinder(detect=_detector(arguments)), images, []


def _detector(arguments: argparse.Namespace) -> Detector:
    from lavis_dynrefer.models.precision import choose_device

    device = choose_device(arguments.device)
    if arguments.proposals:
        from lavis_dynrefer.detectors.region_proposals import RegionProposer

        return RegionProposer(
            arguments.proposal_weights, count=arguments.proposal_count, device=device
        )
    from lavis_dynrefer.detectors.sam import PointSegmenter

    segmenter = PointSegmenter(arguments.sam, device=device)
    return lambda image: segmenter(image, arguments.point)


def _from_file(
    arguments: argparse.Namespace, images: Mapping[str, Path]
) -> tuple[RegionFinder, Mapping[str, Path], list[str]]:
    file = read_box_file(
        arguments.boxes,
        format=arguments.box_format,
        normalised=arguments.normalised,
        images=arguments.images_json,
    )
    entries = file.match({name: str(path) for name, path in images.items()})
    if not entries:
        raise InputError(
            f"{file.path} names none of the images: its first is "
            f"{next(iter(file.images), 'nothing')!r}, the first image is {next(iter(images))!r}"
        )
    without = [name for name in images if name not in entries]
    others = len(file.images) - len(entries)
    notes = []
    if without:
        notes.append(
            f"images without an entry in {file.path}: {len(without):,}, first {without[0]}"
        )
    if others > 0:
        notes.append(f"entries of {file.path} for other images: {others:,}")
    finder = RegionFinder(entries, file.format, file.normalised)
    return finder, {name: path for name, path in images.items() if name in entries}, notes
