"""Which regions of an image are described: given boxes, or what a detector finds."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Callable

from PIL import Image

from lavis_dynrefer.errors import DynReferError, InputError
from lavis_dynrefer.formats import ImageResult, read_box_file
from lavis_dynrefer.formats.image_names import near_name
from lavis_dynrefer.formats.image_result import RegionId
from lavis_dynrefer.formats.reading.box_units import (
    FULL_SIDE,
    MANY_OUTSIDE,
    UnitEvidence,
    size_problem,
)
from lavis_dynrefer.formats.region_boxes import BoxFile, ImageBoxes
from lavis_dynrefer.formats.result_parts.own_categories import OwnCategories
from lavis_dynrefer.formats.result_parts.region_masks import Mask, fits_image
from lavis_dynrefer.images.boxes import SLACK
from lavis_dynrefer.images.decoding import IMAGE_ERRORS, image_size
from lavis_dynrefer.views.regions import Regions, checked_regions

Detector = Callable[[Image.Image], Regions]
_OPTIONS = {
    'format="xywh"': "--box-format xywh",
    'format="xyxy"': "--box-format xyxy",
    "normalised=True": "--box-units fraction",
    "normalised=False": "--box-units pixels",
}
_MEASURED = 50  # images, to tell the units of a file


@dataclass(frozen=True)
class RegionFinder:
    """Finds the regions of images; may be shared by threads.

    Args:
        entries: name of an image -> its boxes.
        format: of these boxes.
        units: of these boxes, one of `UNITS`; None is pixels, but fractions are an error.
        detect: finds regions where there are no entries.
        categories: those of the file that the boxes came from.
    """

    entries: Mapping[str, ImageBoxes] = field(default_factory=dict)
    format: str = "xyxy"
    units: str | None = None
    detect: Detector | None = None
    categories: OwnCategories = field(default_factory=lambda: OwnCategories({}))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, name: str, image: Image.Image) -> Regions:
        """The regions of an image, with the masks of the file that boxes in pixels came from.

        Raises:
            InputError: boxes, masks or points that do not fit the image.
        """
        if self.detect is None:
            return self.given(name, image.size)
        with self._lock:  # a detector uses all cores by itself
            return self.detect(image)

    def annotated(self, result: ImageResult) -> ImageResult:
        """The result with what the user's own file says of its image and regions beside the boxes.

        Categories are those of `OwnCategories`. Masks are in pixels, so beside boxes in other
        units there are none.
        """
        entry = self.entries.get(result.image)
        if entry is None:
            return result
        ids = entry.category_ids or [None] * len(result.regions)
        categories = tuple(map(self.categories.of, result.regions, ids))
        masks = self._masks(entry, (result.width, result.height))
        return replace(
            result,
            ids=self.ids(result.image, len(result.regions)),
            image_id=entry.image_id,
            categories=categories if any(categories) else (),
            masks=tuple(masks or ()),
        )

    def masks_of(self, name: str) -> list[Mask | None] | None:
        """The masks of an image in its file, None if there is none or it has another size."""
        entry = self.entries[name]
        return self._masks(entry, entry.size)

    def _masks(self, entry: ImageBoxes, size: Sequence[int] | None) -> list[Mask | None] | None:
        """The masks of an entry, None if there is none that belongs to an image of this size."""
        masks = entry.masks if self.units in (None, "pixels") else []
        fitting = [
            mask if mask and (size is None or fits_image(mask, size)) else None for mask in masks
        ]
        return fitting if any(fitting) else None

    def ids(self, name: str, count: int) -> tuple[RegionId, ...]:
        """The ids of an image's regions; texts if any image of the file has a text for an id."""
        own = self.entries[name].ids or range(1, count + 1)
        return tuple(map(str, own)) if self._has_text_ids else tuple(own)

    @cached_property
    def _has_text_ids(self) -> bool:
        return any(isinstance(own, str) for entry in self.entries.values() for own in entry.ids)

    def given(self, name: str, size: Sequence[int]) -> Regions:
        """What is given for an image of this width and height, checked."""
        entry = self.entries[name]
        if entry.size is not None:
            problem = size_problem(entry.size, (size[0], size[1]), self.units)
            if problem is not None:
                raise InputError(problem)
        boxes, units = entry.boxes, self.units
        if units in ("percent", "thousandths"):
            boxes, units = _as_fractions(boxes, units), "fraction"
        normalised = None if units is None else units == "fraction"
        try:
            return checked_regions(
                boxes, self._masks(entry, size), size, format=self.format, normalised=normalised
            )
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
    if arguments.box_units is not None and arguments.normalised is not None:
        raise InputError("--normalised is --box-units fraction; give one of the two")
    has_format = arguments.box_format is not None or _units(arguments) is not None
    if has_format and not (arguments.box or arguments.boxes):
        raise InputError("--box-format, --box-units and --normalised go with --box or --boxes")


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
        return RegionFinder(dict.fromkeys(images, whole), units="fraction"), images, []
    if arguments.box:
        entries = dict.fromkeys(images, ImageBoxes(boxes=arguments.box))
        format = arguments.box_format or "xyxy"
        return RegionFinder(entries, format, _units(arguments)), images, []
    return RegionFinder(detect=_detector(arguments)), images, []


def _detector(arguments: argparse.Namespace) -> Detector:
    from lavis_dynrefer.models.precision import choose_device

    device = choose_device(arguments.device)
    if arguments.proposals:
        from lavis_dynrefer.detectors.region_proposals import RegionProposer

        proposer = RegionProposer(
            arguments.proposal_weights, count=arguments.proposal_count, device=device
        )
        return lambda image: checked_regions(proposer(image), None, image.size, normalised=False)
    from lavis_dynrefer.detectors.sam import PointSegmenter

    segmenter = PointSegmenter(arguments.sam, device=device)
    return lambda image: checked_regions(None, segmenter(image, arguments.point), image.size)


def _from_file(
    arguments: argparse.Namespace, images: Mapping[str, Path]
) -> tuple[RegionFinder, Mapping[str, Path], list[str]]:
    file = read_box_file(
        arguments.boxes,
        format=arguments.box_format,
        units=_units(arguments),
        images=arguments.images_json,
    )
    entries = file.match({name: str(path) for name, path in images.items()})
    if not entries:
        first = next(iter(images))
        near = near_name(first, file.images) or next(iter(file.images), "nothing")
        raise InputError(
            f"{file.path} names none of the images: the first image is {first!r}, the file names "
            f"{near!r}"
        )
    without = [name for name in images if name not in entries]
    others = len(file.images) - len(entries)
    if file.units is None:
        _check_units(file, entries, images, asks_format=arguments.box_format is None)
    notes = [f"not used of {file.path}: {note}" for note in file.notes]
    empty = [name for name, entry in entries.items() if not entry.boxes]
    if empty:
        notes.append(f"images without a box in {file.path}: {len(empty):,}, first {empty[0]}")
    if without:
        notes.append(
            f"images without an entry in {file.path}: {len(without):,}, first {without[0]}"
        )
    if others > 0:
        notes.append(f"entries of {file.path} for other images: {others:,}")
    finder = RegionFinder(
        entries, file.format, file.units, categories=OwnCategories(file.categories)
    )
    return finder, {name: path for name, path in images.items() if name in entries}, notes


def _units(arguments: argparse.Namespace) -> str | None:
    """What --box-units says, or the older --normalised."""
    if arguments.normalised is None:
        units: str | None = arguments.box_units
        return units
    return "fraction" if arguments.normalised else "pixels"


def _as_fractions(boxes: Sequence[Sequence[float]], units: str) -> list[list[float]]:
    """Divide percent or thousandths by the whole side.

    Raises:
        InputError: numbers beyond it.
    """
    full = FULL_SIDE[units]
    largest = max((number for box in boxes for number in box), default=0)
    if largest > full * (1 + SLACK):
        raise InputError(
            f"boxes: in {units} they lie in [0, {full:g}], got up to {largest:.6g}; "
            "--box-units says what they are"
        )
    return [[number / full for number in box] for box in boxes]


def _check_order(file: BoxFile) -> None:
    """Ask for the format of a file of corners in which many come in the wrong order.

    Raises:
        InputError: names the options that answer.
    """
    boxes = [box for entry in file.images.values() for box in entry.boxes]
    turned = sum(x2 < x1 or y2 < y1 for x1, y1, x2, y2 in boxes)
    if turned > MANY_OUTSIDE * len(boxes):
        raise InputError(
            f"{file.path}: read as two corners, {turned:,} of {len(boxes):,} boxes have the second "
            "above or to the left of the first; pass --box-format xywh if they are x, y, width, "
            "height, --box-format xyxy if not"
        )


def _check_units(
    file: BoxFile,
    entries: Mapping[str, ImageBoxes],
    images: Mapping[str, Path],
    *,
    asks_format: bool,
) -> None:
    """Ask for the units of a file whose boxes may be percent or thousandths, see `UnitEvidence`.

    Args:
        file: boxes whose units nobody says.
        entries: its entries by the names of images.
        images: name -> path.
        asks_format: ask for the format, too, if boxes in "xywh" may be corners.

    Raises:
        InputError: names the options that answer.
    """
    evidence = UnitEvidence()
    for entry in file.images.values():
        for box in entry.boxes:
            evidence.see(box)
    example = ""
    with_boxes = (name for name, entry in entries.items() if entry.boxes)
    if asks_format and file.format == "xyxy":
        _check_order(file)
    asks_format = asks_format and file.format == "xywh"
    is_measured = asks_format or evidence.may_be_relative
    for name in islice(with_boxes, _MEASURED) if is_measured else ():
        try:
            size = image_size(images[name])
        except (DynReferError, *IMAGE_ERRORS):  # named when it is its turn
            continue
        example = example or f"{name} is {size[0]} x {size[1]} pixels"
        for box in entries[name].boxes:
            evidence.add(box, size, file.format)
    if asks_format and evidence.seem_corners():
        raise InputError(
            f"{file.path}: read as x, y, width, height, {evidence.leaving:,} of "
            f"{evidence.measured:,} boxes extend beyond their images; read as corners, they fit. "
            "Pass --box-format xyxy if they are corners, --box-format xywh if not"
        )
    unit = evidence.doubt()
    if unit is not None:
        raise InputError(
            f"{file.path}: no box coordinate exceeds {FULL_SIDE[unit]:g}, but {example}; pass "
            f"--box-units {unit} if they are {unit} of the image, --box-units pixels if not"
        )
