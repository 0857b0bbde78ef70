"""Images of folders with their boxes, as one Parquet file that is then read like any other."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lavis_dynrefer.formats.json_stream import replacing_path
from lavis_dynrefer.formats.reading.box_units import FULL_SIDE

_GROUP = 1000  # rows that are written, and later read, together
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("path", pa.string()),
        ("boxes", pa.list_(pa.list_(pa.float64()))),
        ("region_ids", pa.list_(pa.string())),
        ("image_size", pa.list_(pa.int32())),
        ("masks", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True)
class ImageRow:
    """An image with its boxes.

    Args:
        name: of the image.
        path: absolute.
        boxes: (R, 4); None: the whole image.
        region_ids: R ids of the file of boxes.
        size: width and height of the image that the boxes were drawn on, if the file says it.
        masks: R masks of the file of boxes, or None.
    """

    name: str
    path: str
    boxes: Sequence[Sequence[float]] | None
    region_ids: Sequence[Any] = ()
    size: tuple[int, int] | None = None
    masks: Sequence[Any] | None = None


def fractions(boxes: Sequence[Sequence[float]], units: str | None) -> Sequence[Sequence[float]]:
    """Boxes in percent or thousandths as fractions of the image; others as they are.

    >>> fractions([[50, 0, 100, 10]], "percent")
    [[0.5, 0.0, 1.0, 0.1]]
    """
    if units not in ("percent", "thousandths"):
        return boxes
    return [[number / FULL_SIDE[units] for number in box] for box in boxes]


def write_manifest(images: Iterable[ImageRow], path: Path) -> None:
    """Write the images; the file appears when it is complete."""
    rows = map(_as_row, images)
    with replacing_path(path) as partial, pq.ParquetWriter(partial, _SCHEMA) as writer:
        while group := list(islice(rows, _GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=_SCHEMA))


def _as_row(image: ImageRow) -> Mapping[str, Any]:
    boxes = None if image.boxes is None else [list(map(float, box)) for box in image.boxes]
    return {
        "id": image.name,
        "path": image.path,
        "boxes": boxes,
        "region_ids": [str(region) for region in image.region_ids],
        "image_size": image.size,
        "masks": image.masks and [mask and json.dumps(mask) for mask in image.masks],
    }
