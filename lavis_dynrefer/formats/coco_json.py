"""COCO's json: images, one annotation per region, categories.

The list of annotations is also a list of results as `pycocotools.coco.COCO.loadRes` takes it, as
far as ids agree: those of the user's own data set are kept where they are whole numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TextIO

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.image_result import (
    NO_CATEGORY,
    ImageResult,
    best_category,
    distinct_ids,
)
from lavis_dynrefer.formats.json_stream import dump_mapping
from lavis_dynrefer.structures import Box, RegionPrediction

_INFO = {"description": "answers about regions by lavis_dynrefer", "version": "1"}
_NAMED_SCORES = ("tags", "attributes", "categories")


def to_coco(results: Collection[ImageResult]) -> dict[str, Any]:
    """The results as COCO's json.

    An annotation has COCO's own keys (`bbox` is x, y, width, height in pixels; `score` the share of
    its category as of `best_category`, else the probability of the caption), and `caption`,
    `caption_score`, `tags`, `attributes`, `categories` (name -> score), `scales` and `region_id`
    beside them. Categories are numbered from 1 in alphabetical order; there is one, "region", where
    none was asked about.
    """
    return {
        key: list(value) if isinstance(value, Iterator) else value for key, value in _parts(results)
    }


def write_coco(results: Collection[ImageResult], file: TextIO) -> None:
    """Write what `to_coco` returns, region by region."""
    dump_mapping(_parts(results), file)
    file.write("\n")


def from_coco(document: Mapping[str, Any]) -> list[ImageResult]:
    """Inverse of `to_coco`; boxes may differ by a rounding error.

    Raises:
        ValueError: the document was not written by `to_coco`.
    """
    try:
        of_image: dict[int, list[Mapping[str, Any]]] = {
            image["id"]: [] for image in document["images"]
        }
        for annotation in document["annotations"]:
            of_image[annotation["image_id"]].append(annotation)
        return [_image(image, of_image[image["id"]]) for image in document["images"]]
    except (KeyError, TypeError) as error:
        raise InputError(
            f"expected COCO's json as dynrefer predict writes it; missing or wrong: {error}"
        ) from error


def _parts(results: Collection[ImageResult]) -> Iterator[tuple[str, Any]]:
    image_ids = distinct_ids([result.image_id for result in results])
    annotation_ids = distinct_ids([number for result in results for number in result.ids])
    names = {name for result in results for region in result.regions for name in _names(region)}
    category_ids = {name: number for number, name in enumerate(sorted(names), start=1)}
    yield "info", _INFO
    yield "images", (_image(result, number) for result, number in zip(results, image_ids))
    yield "annotations", _annotations(results, image_ids, annotation_ids, category_ids)
    yield "categories", [{"id": number, "name": name} for name, number in category_ids.items()]


def _names(region: RegionPrediction) -> Iterator[str]:
    return (name for name, _ in region.categories or ((NO_CATEGORY, 0.0),))


def _image(result: ImageResult, image_id: int) -> dict[str, Any]:
    return {
        "id": image_id,
        "file_name": result.image,
        "path": result.path,
        "width": result.width,
        "height": result.height,
        "own_id": result.image_id,
    }


def _annotations(
    results: Collection[ImageResult],
    image_ids: Sequence[int],
    annotation_ids: Sequence[int],
    category_ids: Mapping[str, int],
) -> Iterator[dict[str, Any]]:
    numbers = iter(annotation_ids)
    for result, image_id in zip(results, image_ids):
        for region_id, region in zip(result.ids, result.regions):
            category, share = best_category(region)
            x1, y1, x2, y2 = region.box
            row = {**region.to_dict(), **{key: dict(getattr(region, key)) for key in _NAMED_SCORES}}
            del row["box"]
            yield {
                "id": next(numbers),
                "image_id": image_id,
                "category_id": category_ids[category],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
                "score": share if share is not None else region.caption_score or 0.0,
                "region_id": region_id,
                **row,
            }


def _image(image: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> ImageResult:
    return ImageResult(
        image=image["file_name"],
        path=image["path"],
        width=image["width"],
        height=image["height"],
        regions=tuple(_region(row) for row in rows),
        ids=tuple(row["region_id"] for row in rows),
        image_id=image["own_id"],
    )


def _region(row: Mapping[str, Any]) -> RegionPrediction:
    x, y, width, height = row["bbox"]
    box: Box = (x, y, x + width, y + height)
    scores = {key: list(row[key].items()) for key in _NAMED_SCORES}
    return RegionPrediction.from_dict({**row, "box": box, **scores})
