"""The regions of a split as columns, for questions about all of them at once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lavis_dynrefer.datasets.tables import REGION_FIELDS, ImageTable, RegionTable
from lavis_dynrefer.structures import RegionSet


class RegionColumns:
    """Columns of a `RegionSet`; those of a table are mapped into memory, not read.

    Args:
        region_set: the regions.

    Attributes:
        boxes: (R, 4) xyxy in pixels.
        image_sizes: (R, 2) annotated width and height of each region's image in pixels.
        per_image: (images,) number of regions, images in order.
    """

    def __init__(self, region_set: RegionSet) -> None:
        regions = region_set.regions
        if isinstance(regions, RegionTable):
            table = _map(regions.path)
            self._parts = [chunk.flatten() for chunk in table["regions"].chunks]
            lengths = pc.list_value_length(table["regions"]).to_numpy()
            image_ids = np.repeat(table["image_id"].to_numpy(), lengths)
        else:
            rows = [
                {field.name: getattr(item, field.name) for field in REGION_FIELDS}
                for item in regions
            ]
            self._parts = [pa.array(rows, REGION_FIELDS)]
            image_ids = np.array([item.image_id for item in regions], dtype=np.int64)
        self._tags = regions.tags if isinstance(regions, RegionTable) else None
        ids, sizes = _image_sizes(region_set)
        order = np.argsort(ids, kind="stable")
        rows_of = order[np.searchsorted(ids, image_ids, sorter=order)]
        self.image_sizes = sizes[rows_of]
        self.per_image = np.bincount(rows_of, minlength=len(ids))
        boxes = [part.field("box").flatten().to_numpy() for part in self._parts]
        self.boxes = np.concatenate([np.zeros(0), *boxes]).reshape(-1, 4)

    def column(self, name: str) -> pa.ChunkedArray:
        """A field of `RegionRecord`, regions in order."""
        parts = [part.field(name) for part in self._parts]
        return pa.chunked_array(parts, REGION_FIELDS.field(name).type)

    def tag_counts(self) -> Counter[str]:
        """Tag -> number of regions that have it."""
        if self._tags is not None:
            rows = pc.list_flatten(_map(self._tags.path)["tags"]).to_numpy()
            counts = np.bincount(rows, minlength=len(self._tags.names))
            return Counter(dict(zip(self._tags.names, counts.tolist())))
        found = pc.value_counts(pc.list_flatten(self.column("tags").drop_null()))
        return Counter(
            dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist()))
        )


def _image_sizes(region_set: RegionSet) -> tuple[np.ndarray, np.ndarray]:
    """(P,) ids and (P, 2) width and height of the images, in order."""
    images = region_set.images
    if isinstance(images, ImageTable):
        table = _map(images.path)
        sizes = [table[side].to_numpy() for side in ("width", "height")]
        return table["image_id"].to_numpy(), np.stack(sizes, axis=1)
    sides = [(image.width, image.height) for image in images.values()]
    return np.array(list(images), dtype=np.int64), np.array(sides, dtype=np.int32).reshape(-1, 2)


def _map(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
