"""COCO json: images, one annotation per region, categories.

The written annotations are also a list of results for `pycocotools.coco.COCO.loadRes`, provided the
ids agree: those of the user's own dataset are kept if they are whole numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TextIO

from lavis_dynrefer.formats.image_result import (
    ImageResult,
    RegionId,
    category_labels,
    distinct_ids,
    top_category,
)
from lavis_dynrefer.formats.json_stream import dump_object
from lavis_dynrefer.formats.region_boxes import ImageBoxes, is_box, record_error
from lavis_dynrefer.images.boxes import xyxy_to_xywh
from lavis_dynrefer.images.masks import box_from_polygons, box_from_rle
from lavis_dynrefer.structures import RegionPrediction

_INFO = {"description": "answers about regions by lavis_dynrefer", "version": "1"}
_NAMED_SCORES = ("tags", "attributes", "categories")


def write_coco(results: Collection[ImageResult], file: TextIO) -> None:
    """Write the results as COCO json.

    An annotation has COCO's own keys (`bbox` is x, y, width, height in pixels; `score` is the share
    of its category as in `top_category`, else the probability of the caption), and `caption`,
    `caption_score`, `tags`, `attributes`, `categories` (name -> score), `scales` and `region_id`
    beside them. Categories are numbered from 1 in alphabetical order; without any there
    is one, "region".
    """
    images: list[dict[str, Any]] = []
    region_ids: list[RegionId] = []
    names: set[str] = set()
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
        for region in result.regions:
            names.update(category_labels(region))
    image_ids = distinct_ids([image["own_id"] for image in images])
    annotation_ids = iter(distinct_ids(region_ids))
    category_ids = {name: number for number, name in enumerate(sorted(names), start=1)}
    annotations = (
        {
            "id": next(annotation_ids),
            "image_id": image_id,
            "category_id": category_ids[top_category(region)[0]],
            **_answers(region),
            "region_id": region_id,
        }
        for result, image_id in zip(results, image_ids)
        for region_id, region in zip(result.ids, result.regions)
    )
    content = {
        "info": _INFO,
        "images": ({"id": number, **image} for number, image in zip(image_ids, images)),
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in category_ids.items()],
    }
    dump_object(content.items(), file)
    file.write("\n")


def read_coco_boxes(annotations: Any, images: Any, format: str) -> dict[str, ImageBoxes]:
    """Read the boxes of annotations or results.

    Args:
        annotations: each with `image_id`, and `bbox` or `segmentation`.
        images: each with `id` and `file_name`.
        format: of `bbox`, "xywh" or "xyxy"; the boxes of segmentations are converted to it.

    Raises:
        InputError: an invalid record; names it.
    """
    by_name: dict[str, ImageBoxes] = {}
    by_id: dict[Any, ImageBoxes] = {}
    for where, image in _numbered("images", images):
        named = isinstance(image, Mapping) and isinstance(image.get("file_name"), str)
        if not named or not isinstance(image.get("id"), (int, str)):
            raise record_error(where, "an object with id and file_name", image)
        number = image["id"]
        by_id[number] = ImageBoxes(image_id=number if type(number) is int else None)
        by_name[image["file_name"]] = by_id[number]
    for where, annotation in _numbered("annotations", annotations):
        try:
            entry = by_id[annotation["image_id"]]
        except (KeyError, TypeError) as error:
            raise record_error(
                where, "an object with the image_id of an image", annotation
            ) from error
        try:
            entry.add(_box_of(annotation, format), annotation.get("id"))
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise record_error(where, "bbox or segmentation", annotation) from error
    return by_name


def _answers(region: RegionPrediction) -> dict[str, Any]:
    x, y, width, height = xyxy_to_xywh(region.box)
    _, share = top_category(region)
    answers = {
        "bbox": [x, y, width, height],
        "area": width * height,
        "iscrowd": 0,
        "score": share if share is not None else region.caption_score or 0.0,
        **region.to_dict(),
        **{key: dict(getattr(region, key)) for key in _NAMED_SCORES},
    }
    del answers["box"]
    return answers


def _numbered(key: str, records: Any) -> Iterator[tuple[str, Any]]:
    """Yield the place of each record, and the record."""
    if not isinstance(records, list):
        raise record_error(key, "a list", records)
    return ((f"{key}[{number}]", record) for number, record in enumerate(records))


def _box_of(annotation: Mapping[str, Any], format: str) -> Sequence[float]:
    """The bbox, else the box of the segmentation."""
    if annotation.get("bbox"):
        if not is_box(annotation["bbox"]):
            raise TypeError("bbox is not a box")
        bbox: Sequence[float] = annotation["bbox"]
        return bbox
    mask = annotation["segmentation"]
    box = box_from_rle(mask) if isinstance(mask, Mapping) else box_from_polygons(mask)
    return box if format == "xyxy" else xyxy_to_xywh(box)
