"""FiftyOne's folder of detections, `FiftyOneImageDetectionDataset`; the images stay in place.

fiftyone.Dataset.from_dir(
    "answers/fiftyone",
    dataset_type=fiftyone.types.FiftyOneImageDetectionDataset,
    data_path="data.json",
)
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TextIO

from lavis_dynrefer.formats.image_result import (
    ImageResult,
    RegionId,
    outstanding,
    relative_box,
    top_category,
)
from lavis_dynrefer.formats.json_stream import dump_object
from lavis_dynrefer.structures import RegionPrediction


def write_fiftyone(results: Collection[ImageResult], labels: TextIO, data: TextIO) -> None:
    """Write labels.json, and data.json with the path of each image.

    A detection has FiftyOne's own keys (`bounding_box` is left, top, width, height as fractions of
    the image) and the attributes `caption`, `caption_score`, `region_tags`, `region_attributes`
    (the outstanding ones) and `region_id`.
    """
    labels.write('{"classes": null, "labels": ')
    dump_object(((_key(number), _detections(row)) for number, row in enumerate(results, 1)), labels)
    labels.write("}\n")
    dump_object(((_key(number), row.path) for number, row in enumerate(results, 1)), data)
    data.write("\n")


def _key(number: int) -> str:
    """Not the name: FiftyOne drops its extension, so a.jpg and a.png would be one image."""
    return f"{number:09}"


def _detections(result: ImageResult) -> list[dict[str, Any]]:
    return [_detection(result, *region) for region in zip(result.ids, result.regions)]


def _detection(result: ImageResult, number: RegionId, region: RegionPrediction) -> dict[str, Any]:
    category, share = top_category(region)
    detection: dict[str, Any] = {
        "label": category,
        "bounding_box": list(relative_box(result, region)),
        "attributes": {
            "region_id": str(number),
            "caption": region.caption,
            "caption_score": region.caption_score,
            "region_tags": [name for name, _ in region.tags],
            "region_attributes": outstanding(region.attributes),
        },
    }
    return detection if share is None else {**detection, "confidence": share}
