"""COCO json: images, one annotation per region, categories.

The written annotations are also a list of results for `pycocotools.coco.COCO.loadRes`, provided the
ids agree: those of the user's own dataset are kept if they are whole numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import repeat
from typing import Any, TextIO

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.image_result import (
    Category,
    ImageResult,
    RegionId,
    category_labels,
    distinct_ids,
    top_category,
)
from lavis_dynrefer.formats.json_stream import dump_object
from lavis_dynrefer.formats.reading.coco_rows import (
    box_of_annotation,
    brief,
    entry_name,
    entry_size,
    rle_size,
    row_id,
)
from lavis_dynrefer.formats.reading.faults import Faults
from lavis_dynrefer.formats.reading.strict_values import Id, shown
from lavis_dynrefer.formats.region_boxes import Grouping, ImageBoxes, record_error
from lavis_dynrefer.formats.result_parts.region_masks import Mask, box_polygon, mask_area, read_mask
from lavis_dynrefer.images.boxes import xyxy_to_xywh
from lavis_dynrefer.structures import Box, RegionPrediction

_INFO = {"description": "answers about regions by lavis_dynrefer", "version": "1"}
_NAMED_SCORES = ("tags", "attributes", "categories")


def write_coco(results: Collection[ImageResult], file: TextIO) -> None:
    """Write the results as COCO json.

    An annotation has COCO's own keys (`bbox` is x, y, width, height in pixels; `segmentation` is
    the mask of the user's own file, else the outline of the box; `score` is the share of its
    category as in `top_category`, else the probability of the caption), and `caption`,
    `caption_score`, `tags`, `attributes`, `categories` (name -> score), `scales` and `region_id`
    beside them. Categories keep the ids of the user's own file; without one they are numbered from
    1 in alphabetical order, and without any category there is one, "region".
    """
    images: list[dict[str, Any]] = []
    region_ids: list[RegionId] = []
    names: set[str] = set()
    own: set[Category] = set()
    for result in results:
        images.append(
            {
                "file_name": result.image,
                "path": result.path,
                "width": result.width,
                "height": result.height,
                "own_id": result.image_id,
            }
        )
        region_ids += result.ids
        own.update(filter(None, result.categories))
        for region, category in zip(result.regions, result.categories or repeat(None)):
            names.update([] if category else category_labels(region))
    image_ids = distinct_ids([image["own_id"] for image in images], first=0)
    annotation_ids = iter(distinct_ids(region_ids))
    categories, numbers = _numbered(own, names)
    annotations = (
        {
            "id": next(annotation_ids),
            "image_id": image_id,
            "category_id": numbers[category or top_category(region)[0]],
            **_answers(region, mask),
            "region_id": region_id,
        }
        for result, image_id in zip(results, image_ids)
        for region_id, region, category, mask in zip(
            result.ids,
            result.regions,
            result.categories or repeat(None),
            result.masks or repeat(None),
        )
    )
    content = {
        "info": _INFO,
        "images": ({"id": number, **image} for number, image in zip(image_ids, images)),
        "annotations": annotations,
        "categories": [category._asdict() for category in categories],
    }
    dump_object(content.items(), file)
    file.write("\n")


def _numbered(
    own: set[Category], names: set[str]
) -> tuple[list[Category], dict[Category | str, int]]:
    """The categories to list, and the number of each of `own` and `names`.

    Where two of `own` have one id, as of results for two files, the ids are not kept.
    """
    listed = sorted(own)
    if len({category.id for category in own}) < len(own):
        names, listed = names | {category.name for category in own}, []
    first = max((category.id for category in listed), default=0) + 1
    new = sorted(names - {category.name for category in listed})
    listed += [Category(number, name) for number, name in enumerate(new, start=first)]
    numbers: dict[Category | str, int] = {one.name: one.id for one in reversed(listed)}
    numbers.update({one: numbers[one.name] for one in own})
    numbers.update({one: one.id for one in listed})
    return listed, numbers


def read_coco_boxes(
    annotations: Any, images: Any, format: str, faults: Faults
) -> dict[str, ImageBoxes]:
    """Read the boxes of annotations or results; entries of one file name are one image.

    Args:
        annotations: each with `image_id`, and `bbox` or `segmentation`.
        images: each with `id` and `file_name`, or an address in its place.
        format: of `bbox`, "xywh" or "xyxy"; the boxes of segmentations are converted to it.
        faults: gets the entries and annotations that cannot be used.

    Raises:
        InputError: no lists, nothing usable, or an id or a file with two meanings.
    """
    by_id, found = _listed_images(images, faults)
    seen: dict[tuple[int, Id], Box] = {}  # image and id -> its box
    shared: dict[int, ImageBoxes] = {}  # images in which an id has two boxes
    usable = 0
    for where, annotation in _placed("annotations", annotations):
        try:
            number = row_id(annotation, "image_id")
            box = box_of_annotation(annotation, format)
            if number in by_id:
                by_id[number].set_size(rle_size(annotation))
        except InputError as error:
            example = f"{where}: {error} in {shown(brief(annotation))}"
            faults.add("annotations that cannot be read", example)
            continue
        if number not in by_id:
            example = f"{where}: image_id {number!r} is not listed in 'images'"
            faults.add("annotations of unknown images", example)
            continue
        usable += 1
        key = "region_id" if "region_id" in annotation else "id"  # as `write_coco` keeps it
        own_id, entry = _id_or_none(annotation, key), by_id[number]
        if own_id is not None:
            earlier = seen.setdefault((id(entry), own_id), box)
            if earlier is not box:
                if earlier == box:
                    faults.add("annotations that repeat an earlier one", f"{where}: id {own_id}")
                    continue
                faults.add("ids shared by two boxes of an image", f"{where}: id {own_id}")
                shared[id(entry)] = entry
        category = annotation.get("category_id")
        entry.add(
            box,
            own_id,
            category_id=category if type(category) is int else None,
            mask=_mask_of(annotation, where, faults),
        )
    for entry in shared.values():
        entry.ids.clear()  # its regions are numbered
    faults.require(usable)
    return found


def read_coco_categories(categories: Any) -> dict[int, str]:
    """Id -> name of the categories that have both."""
    rows = categories if isinstance(categories, list) else []
    return {
        row["id"]: row["name"]
        for row in rows
        if isinstance(row, Mapping)
        and type(row.get("id")) is int
        and isinstance(row.get("name"), str)
    }


def _listed_images(
    images: Any, faults: Faults
) -> tuple[dict[Id, ImageBoxes], dict[str, ImageBoxes]]:
    """The images by id and by name, without boxes so far."""
    grouping = Grouping()
    by_id: dict[Id, ImageBoxes] = {}
    names: dict[Id, str] = {}
    ids_of: dict[int, Id] = {}  # identity of an entry -> the id that it had first
    for where, image in _placed("images", images):
        try:
            number, name, size = row_id(image, "id"), entry_name(image), entry_size(image)
            if name is None:
                raise InputError("no file_name")
        except InputError as error:
            faults.add("images that cannot be read", f"{where}: {error} in {shown(image)}")
            continue
        if names.setdefault(number, name) != name:
            raise InputError(f"image id {number!r} means {names[number]!r} and {name!r}")
        entry = by_id[number] = grouping.entry(name, where)
        try:
            entry.set_size(size)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        is_only = ids_of.setdefault(id(entry), number) == number
        entry.image_id = number if is_only and type(number) is int else None
    return by_id, grouping.images


def _answers(region: RegionPrediction, mask: Mask | None) -> dict[str, Any]:
    x, y, width, height = xyxy_to_xywh(region.box)
    _, share = top_category(region)
    answers = {
        "bbox": [x, y, width, height],
        # `loadRes` adds the outlines of boxes as well, but not where there are captions.
        "segmentation": mask or box_polygon(x, y, width, height),
        "area": mask_area(mask) if mask else width * height,
        "iscrowd": 0,
        "score": share if share is not None else region.caption_score or 0.0,
        **region.to_dict(),
        **{key: dict(getattr(region, key)) for key in _NAMED_SCORES},
    }
    del answers["box"]
    return answers


def _placed(key: str, records: Any) -> Iterator[tuple[str, Any]]:
    """Yield the place of each record, and the record."""
    if not isinstance(records, list):
        raise record_error(key, "a list", records)
    return ((f"{key}[{number}]", record) for number, record in enumerate(records))


def _mask_of(annotation: Mapping[str, Any], where: str, faults: Faults) -> Mask | None:
    """The segmentation; one that is damaged is counted, and its box is asked about."""
    try:
        return read_mask(annotation.get("segmentation"))
    except InputError as error:
        faults.add("masks that cannot be read, whose boxes are used", f"{where}: {error}")
        return None


def _id_or_none(row: Mapping[str, Any], key: str) -> Id | None:
    try:
        return row_id(row, key)
    except InputError:
        return None
