"""FiftyOne's folder for detections, type `FiftyOneImageDetectionDataset`; images stay in place.

fiftyone.Dataset.from_dir(
    "answers/fiftyone",
    dataset_type=fiftyone.types.FiftyOneImageDetectionDataset,
    data_path="data.json",
)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, TextIO

from lavis_dynrefer.formats.image_result import (
    ImageResult,
    RegionId,
    best_category,
    outstanding,
    relative_box,
)
from lavis_dynrefer.formats.json_stream import dump_mapping
from lavis_dynrefer.structures import RegionPrediction


def to_fiftyone(results: Collection[ImageResult]) -> dict[str, dict[str, Any]]:
    """The two files of the folder, file name -> content.

    A detection has FiftyOne's own keys (`bounding_box` is left, top, width, height as shares of the
    image) and the attributes `caption`, `caption_score`, `region_tags`, `region_attributes`
    (those that stand out) and `region_id`.
    """
    return {
        "labels.json": {"classes": None, "labels": dict(_labels(results))},
        "data.json": dict(_paths(results)),
    }


def write_labels(results: Collection[ImageResult], file: TextIO) -> None:
    """Write `labels.json`, image by image."""
    file.write('{"classes": null, "labels": ')
    dump_mapping(_labels(results), file)
    file.write("}\n")


def write_paths(results: Collection[ImageResult], file: TextIO) -> None:
    """Write `data.json`, which says where each image lies."""
    dump_mapping(_paths(results), file)
    file.write("\n")


def _keys(results: Collection[ImageResult]) -> Iterator[tuple[str, ImageResult]]:
    """FiftyOne drops the endings of file names, so that a.jpg and a.png would be one image."""
    return ((f"{number:09}", result) for number, result in enumerate(results, start=1))


def _labels(results: Collection[ImageResult]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for key, result in _keys(results):
        yield (
            key,
            [
                _detection(result, number, region)
                for number, region in zip(result.ids, result.regions)
            ],
        )


def _paths(results: Collection[ImageResult]) -> Iterator[tuple[str, str]]:
    return ((key, result.path) for key, result in _keys(results))


def _detection(result: ImageResult, number: RegionId, region: RegionPrediction) -> dict[str, Any]:
    category, share = best_category(region)
    detection: dict[str, Any] = {
        "label": category,
        "bounding_box": relative_box(result, region),
        "attributes": {
            "region_id": str(number),
            "caption": region.caption,
            "caption_score": region.caption_score,
            "region_tags": [name for name, _ in region.tags],
            "region_attributes": outstanding(region.attributes),
        },
    }
    return detection if share is None else {**detection, "confidence": share}
