"""Which regions of an image are asked about: boxes that were given, or what a detector finds."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from PIL import Image
from torch import Tensor

from lavis_dynrefer.cli.predict.predict_images import ImageFile
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats import read_box_file
from lavis_dynrefer.formats.image_result import RegionId
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
class RegionOptions:
    """The options of the command line about regions, by their names.

    Exactly one of the first five is given.

    Raises:
        InputError: options that do not go together.
    """

    box: Sequence[Sequence[float]] | None
    point: Sequence[Sequence[float]] | None
    boxes: Path | None
    whole_image: bool
    proposals: str | None
    box_format: str | None
    normalised: bool | None
    images_json: Path | None
    proposal_weights: Path | None
    proposal_count: int
    sam: Path | None

    def __post_init__(self) -> None:
        if self.proposals and self.proposal_weights is None:
            raise InputError("--proposals rpn needs --proposal-weights, a weight file of yours")
        if self.proposal_weights and not self.proposals:
            raise InputError("--proposal-weights goes with --proposals rpn")
        if bool(self.point) != (self.sam is not None):
            raise InputError(
                "--point needs --sam, a folder of SAM weights, and --sam needs --point"
            )
        if self.proposal_count < 1:
            raise InputError(f"--proposal-count: expected at least 1, got {self.proposal_count}")
        if self.images_json and not self.boxes:
            raise InputError("--images-json goes with --boxes")
        has_form = self.box_format is not None or self.normalised is not None
        if has_form and not (self.box or self.boxes):
            raise InputError("--box-format and --normalised go with --box or --boxes")

    def settings(self) -> dict[str, Any]:
        """What decides about the regions besides boxes, as plain json."""
        proposals = points = None
        if self.proposal_weights:
            proposals = [str(self.proposal_weights.absolute()), self.proposal_count]
        if self.sam:
            points = [self.point, str(self.sam.absolute())]
        return {"proposals": proposals, "points": points}


@dataclass(frozen=True)
class RegionRequest:
    """The regions of one image that are asked about.

    Args:
        boxes: (R, 4) xyxy in pixels, checked.
        ids: R ids, or none.
        image_id: the image's id in the user's data, if it has one.
    """

    boxes: Tensor
    ids: tuple[RegionId, ...] = ()
    image_id: int | None = None


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

    def __call__(self, name: str, image: Image.Image) -> RegionRequest:
        """The regions of an image.

        Raises:
            InputError: boxes or points that do not fit the image.
        """
        if self.detect is None:
            return self.given(name, image.size)
        with self._lock:  # a detector uses all cores by itself
            boxes = self.detect(image)
        return RegionRequest(pixel_boxes(boxes, image.size, normalised=False))

    def given(self, name: str, size: Sequence[int]) -> RegionRequest:
        """The regions that are given for an image of this width and height."""
        entry = self.entries[name]
        try:
            boxes = pixel_boxes(entry.boxes, size, format=self.format, normalised=self.normalised)
        except InputError as error:
            message = str(error)
            for argument, option in _OPTIONS.items():
                message = message.replace(argument, option)
            raise InputError(message) from error
        return RegionRequest(boxes, tuple(entry.ids), entry.image_id)


def region_finder(
    options: RegionOptions, images: Sequence[ImageFile], *, device: str
) -> tuple[RegionFinder, Sequence[ImageFile], list[str]]:
    """The finder, the images that have regions, and notes about the others.

    Raises:
        InputError: an invalid file of boxes or weights, or boxes of other images only.
        MissingFileError: a file does not exist.
        MissingPackageError: points, and the installed transformers has no SAM.
    """
    if options.boxes:
        return _from_file(options, images)
    names = [image.name for image in images]
    if options.whole_image:
        whole = ImageBoxes(boxes=[(0, 0, 1, 1)])
        return RegionFinder(dict.fromkeys(names, whole), normalised=True), images, []
    if options.box:
        entries = dict.fromkeys(names, ImageBoxes(boxes=list(options.box)))
        form = options.box_format or "xyxy"
        return RegionFinder(entries, form, options.normalised), images, []
    return RegionFinder(detect=_detector(options, device)), images, []


def _detector(options: RegionOptions, device: str) -> Detector:
    if options.proposal_weights:
        from lavis_dynrefer.detectors.region_proposals import RegionProposer

        return RegionProposer(options.proposal_weights, count=options.proposal_count)
    from lavis_dynrefer.detectors.sam import PointSegmenter
    from lavis_dynrefer.models.precision import choose_device

    segmenter = PointSegmenter(options.sam or "", device=choose_device(device))
    return lambda image: segmenter(image, options.point)


def _from_file(
    options: RegionOptions, images: Sequence[ImageFile]
) -> tuple[RegionFinder, Sequence[ImageFile], list[str]]:
    file = read_box_file(
        options.boxes or "",
        format=options.box_format,
        normalised=options.normalised,
        images=options.images_json,
    )
    entries = file.match({image.name: str(image.path) for image in images})
    if not entries:
        raise InputError(
            f"{file.path} names none of the images: its first is "
            f"{next(iter(file.images), 'nothing')!r}, the first image is {images[0].name!r}"
        )
    without = [image.name for image in images if image.name not in entries]
    others = len(file.images) - len(entries)
    notes = []
    if without:
        notes.append(
            f"images without an entry in {file.path}: {len(without):,}, first {without[0]}"
        )
    if others > 0:
        notes.append(f"entries of {file.path} for other images: {others:,}")
    finder = RegionFinder(entries, file.format, file.normalised)
    return finder, [image for image in images if image.name in entries], notes
