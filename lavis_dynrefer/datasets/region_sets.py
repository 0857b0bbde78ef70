"""Aggregates over the regions of a split, in memory or in a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from lavis_dynrefer.datasets.tables import columns_of, numbers
from lavis_dynrefer.structures import RegionRecord, RegionSet


def captions_of(region_set: RegionSet) -> Iterator[str]:
    """The captions of all regions that have one."""
    chunks = columns_of(region_set.regions)["caption"].chunks
    return (caption for chunk in chunks for caption in chunk.drop_null().to_pylist())


def sample_captions(region_set: RegionSet, limit: int) -> tuple[list[str], int]:
    """At most `limit` captions, evenly from the whole split, and how many it has."""
    captions = columns_of(region_set.regions)["caption"]
    if captions.null_count:
        captions = captions.drop_null()
    total = len(captions)
    rows = np.arange(0, total, max(-(-total // limit), 1))
    return captions.take(pa.array(rows)).to_pylist(), total


def tags_of(region_set: RegionSet) -> set[str]:
    """All tags in the annotations themselves."""
    chunks = columns_of(region_set.regions)["tags"].chunks
    return {tag for chunk in chunks for tag in chunk.flatten().unique().to_pylist()}


class RowGroups(Sequence[list[int]]):
    """Groups of rows, as compact as two arrays."""

    def __init__(self, rows: np.ndarray, starts: np.ndarray) -> None:
        self._rows = rows
        self._starts = starts  # of the groups in `rows`, and the end

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"group {index} of {len(self)}")
        return self._rows[self._starts[index] : self._starts[index + 1]].tolist()


def rows_by_image(region_set: RegionSet, max_rows: int | None = None) -> RowGroups:
    """Rows of `region_set.regions` that share an image; images in the order they first occur.

    Args:
        region_set: the regions.
        max_rows: limit of a group; an image with more regions gives several. None: no limit.
    """
    ids = _image_ids(region_set.regions)
    _, first, owner, counts = np.unique(
        ids, return_index=True, return_inverse=True, return_counts=True
    )
    rows = np.argsort(first[owner], kind="stable")
    counts = counts[np.argsort(first)]  # of regions, images in order
    sizes = counts if max_rows is None else np.full(len(counts), max_rows)
    groups = -(counts // -sizes)  # (images,) rounded up
    within = np.arange(groups.sum()) - np.repeat(np.cumsum(groups) - groups, groups)
    starts = np.repeat(np.cumsum(counts) - counts, groups) + within * np.repeat(sizes, groups)
    return RowGroups(rows, np.append(starts, len(rows)))


def first_regions(
    region_set: RegionSet, max_images: int | None, max_regions: int | None
) -> RegionSet:
    """The first images and regions of a split, for trials; its name ends in "-trial".

    Images without a region to ask about (a detector leaves some) count too: they are graded.
    """
    if max_images is None and max_regions is None:
        return region_set
    kept = dict.fromkeys(islice(region_set.images, max_images))
    rows = np.isin(_image_ids(region_set.regions), list(kept)).nonzero()[0]
    regions = [region_set.regions[row] for row in rows[:max_regions].tolist()]
    if max_regions is not None:
        kept = dict.fromkeys(region.image_id for region in regions)
    return replace(
        region_set,
        name=f"{region_set.name}-trial",
        regions=regions,
        images={image_id: region_set.images[image_id] for image_id in kept},
        rejected=[item for item in region_set.rejected if item.image_id in kept],
        truth_regions=[item for item in region_set.truth_regions if item.image_id in kept],
    )


def _image_ids(regions: Sequence[RegionRecord]) -> np.ndarray:
    """(R,) int64."""
    chunks = columns_of(regions)["image_id"].chunks
    return np.concatenate([np.empty(0, np.int64), *(numbers(part, np.int64) for part in chunks)])
