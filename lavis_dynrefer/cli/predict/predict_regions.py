"""Which regions of an image are asked about: five ways to say so on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import torch
from PIL import Image
from torch import Tensor

from lavis_dynrefer.cli.predict.predict_images import ImageFile
from lavis_dynrefer.detectors.region_proposals import RegionProposer
from lavis_dynrefer.detectors.sam import PointSegmenter
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.box_entries import ImageBoxes
from lavis_dynrefer.formats.box_files import read_box_file
from lavis_dynrefer.formats.image_result import RegionId
from lavis_dynrefer.images import BOX_FORMATS, pixel_boxes
from lavis_dynrefer.predictor import choose_device


@dataclass(frozen=True)
class Asked:
    """The regions of one image.

    Args:
        boxes: (R, 4) xyxy in pixels.
        ids: R ids, or none.
        image_id: the image's id in the user's data, where it has one.
    """

    boxes: Tensor
    ids: tuple[RegionId, ...] = ()
    image_id: int | None = None


_TYPED = {
    'format="xywh"': "--box-format xywh",
    'format="xyxy"': "--box-format xyxy",
    "normalised=True": "--normalised",
    "normalised=False": "--no-normalised",
}

# Name of an image, its width and height, and its pixels -> its regions. Without the pixels (None)
# the answer is None where only they could tell.
RegionFinder = Callable[[str, Sequence[int], Optional[Image.Image]], Optional[Asked]]


def add_region_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that say which regions are asked about."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--box",
        action="append",
        type=_box,
        metavar="X1,Y1,X2,Y2",
        help="a region, in pixels; may be repeated; --box=-5,0,9,9 if it begins with a minus",
    )
    where.add_argument(
        "--point",
        action="append",
        type=_point,
        metavar="X,Y",
        help="in pixels, on a thing whose box SAM finds; may be repeated; needs --sam",
    )
    where.add_argument("--boxes", type=Path, metavar="FILE", help="json, jsonl, COCO json or csv")
    where.add_argument("--whole-image", action="store_true", help="one region: all of the image")
    where.add_argument("--proposals", choices=("rpn",), help="regions a detector proposes")
    parser.add_argument("--box-format", choices=BOX_FORMATS, help="of --box and --boxes; else xyxy")
    parser.add_argument(
        "--normalised",
        action=argparse.BooleanOptionalAction,
        help="boxes are shares of the image, 0 to 1; --no-normalised: pixels, however small",
    )
    parser.add_argument(
        "--images-json", type=Path, help="COCO json with the images of a COCO list of results"
    )
    parser.add_argument(
        "--proposal-weights", type=Path, help="weights of a Faster R-CNN of torchvision, a file"
    )
    parser.add_argument("--sam", type=Path, metavar="FOLDER", help="weights of SAM, for --point")
    parser.add_argument("--proposal-count", type=int, default=20, help="best proposals per image")


def check_region_arguments(arguments: argparse.Namespace) -> None:
    """Refuse arguments that do not go together.

    Raises:
        ValueError: names them.
    """
    if arguments.proposals and arguments.proposal_weights is None:
        raise InputError("--proposals rpn needs --proposal-weights: a file of weights you have")
    if arguments.proposal_weights and not arguments.proposals:
        raise InputError("--proposal-weights goes with --proposals rpn")
    if bool(arguments.point) != (arguments.sam is not None):
        raise InputError("--point needs --sam, a folder of SAM's weights, and --sam needs --point")
    if arguments.proposal_count < 1:
        raise InputError(f"--proposal-count: expected at least 1, got {arguments.proposal_count}")
    if arguments.images_json and not arguments.boxes:
        raise InputError("--images-json goes with --boxes")
    has_form = arguments.box_format is not None or arguments.normalised is not None
    if has_form and not (arguments.box or arguments.boxes):
        raise InputError("--box-format and --normalised go with --box or --boxes")


def region_finder(
    arguments: argparse.Namespace, images: Sequence[ImageFile]
) -> tuple[RegionFinder, Sequence[ImageFile], list[str]]:
    """How to find regions, the images that have any entry, and what to tell about the others.

    Raises:
        ValueError: a damaged file of boxes or weights, or boxes of other images only.
        FileNotFoundError: no such file.
        ImportError: points, and the installed transformers has no SAM.
    """
    normalised = arguments.normalised
    if arguments.whole_image:
        return _whole_image, images, []
    if arguments.proposals:
        proposer = RegionProposer(arguments.proposal_weights, count=arguments.proposal_count)
        return _proposed(proposer), images, []
    if arguments.point:
        segmenter = PointSegmenter(arguments.sam, device=choose_device(arguments.device))
        return _pointed_at(segmenter, arguments.point), images, []
    if arguments.box:
        entry = ImageBoxes(boxes=arguments.box)
        entries = {image.name: entry for image in images}
        return _from_entries(entries, arguments.box_format or "xyxy", normalised), images, []
    file = read_box_file(
        arguments.boxes,
        format=arguments.box_format,
        normalised=normalised,
        images=arguments.images_json,
    )
    entries = file.match({image.name: str(image.path) for image in images})
    with_boxes = [image for image in images if image.name in entries]
    if not with_boxes:
        raise InputError(
            f"{file.path} names none of the images: it begins with "
            f"{next(iter(file.images), 'nothing')!r}, they begin with {images[0].name!r}"
        )
    without = [image.name for image in images if image.name not in entries]
    notes = []
    if without:
        notes.append(
            f"images without an entry in {file.path}: {len(without):,}, first {without[0]}"
        )
    if len(file.images) > len(entries):
        count = len(file.images) - len(entries)
        notes.append(f"entries of {file.path} for other images: {count:,}")
    return _from_entries(entries, file.format, file.normalised), with_boxes, notes


def _from_entries(
    entries: Mapping[str, ImageBoxes], format: str, normalised: bool | None
) -> RegionFinder:
    def find(name: str, size: Sequence[int], image: Image.Image | None) -> Asked:
        entry = entries[name]
        try:
            boxes = pixel_boxes(entry.boxes, size, format=format, normalised=normalised)
        except ValueError as error:
            raise InputError(_as_typed(str(error))) from error
        return Asked(boxes, tuple(entry.ids), entry.image_id)

    return find


def _as_typed(message: str) -> str:
    """An error about arguments in Python, about those of the command line."""
    for python, typed in _TYPED.items():
        message = message.replace(python, typed)
    return message


def _whole_image(name: str, size: Sequence[int], image: Image.Image | None) -> Asked:
    return Asked(torch.tensor([[0.0, 0.0, size[0], size[1]]]))


def _proposed(proposer: RegionProposer) -> RegionFinder:
    def find(name: str, size: Sequence[int], image: Image.Image | None) -> Asked | None:
        return None if image is None else Asked(proposer(image))

    return find


def _pointed_at(segmenter: PointSegmenter, points: Sequence[Sequence[float]]) -> RegionFinder:
    def find(name: str, size: Sequence[int], image: Image.Image | None) -> Asked | None:
        return None if image is None else Asked(segmenter(image, points))

    return find


def _point(text: str) -> list[float]:
    try:
        x, y = (float(number) for number in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"expected two numbers with a comma, such as 60,120, got {text!r}"
        ) from error
    return [x, y]


def _box(text: str) -> list[float]:
    try:
        x1, y1, x2, y2 = (float(number) for number in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"expected four numbers with commas, such as 10,20,110,220, got {text!r}"
        ) from error
    return [x1, y1, x2, y2]
