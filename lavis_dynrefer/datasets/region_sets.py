"""Questions about the regions of a split as a whole, in memory or in a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from lavis_dynrefer.datasets.tables import IMAGE_SCHEMA, RegionTable, read_batches
from lavis_dynrefer.structures import RegionSet


def rows_by_image(region_set: RegionSet, most: int | None = None) -> Sequence[Sequence[int]]:
    """Rows of `region_set.regions` that share an image, images in order.

    Args:
        region_set: the regions.
        most: largest group; an image with more regions gives several groups. None: no limit.
    """
    regions = region_set.regions
    if isinstance(regions, RegionTable):
        starts = regions.image_starts()
        if most is None:
            return _Ranges(starts[np.append(np.diff(starts) > 0, True)])
        groups = -(np.diff(starts) // -most)  # (images,) rounded up
        within = np.arange(groups.sum()) - np.repeat(np.cumsum(groups) - groups, groups)
        return _Ranges(np.append(np.repeat(starts[:-1], groups) + most * within, starts[-1]))
    rows: dict[int, list[int]] = {}
    for row, region in enumerate(regions):
        rows.setdefault(region.image_id, []).append(row)
    return [
        group[first : first + (most or len(group))]
        for group in rows.values()
        for first in range(0, len(group), most or len(group))
    ]


class _Ranges(Sequence[Sequence[int]]):
    """Consecutive ranges, stored as one array of their starts."""

    def __init__(self, starts: np.ndarray) -> None:
        self._starts = starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"group {index} of {len(self)}")
        return range(int(self._starts[index]), int(self._starts[index + 1]))


def captions_of(region_set: RegionSet) -> Iterator[str]:
    """The captions of all regions that have one."""
    regions = region_set.regions
    is_table = isinstance(regions, RegionTable)
    found = regions.captions() if is_table else (region.caption for region in regions)
    return (caption for caption in found if caption is not None)


def tags_of(region_set: RegionSet) -> set[str]:
    """All tags that the annotations themselves name."""
    regions = region_set.regions
    if not isinstance(regions, RegionTable):
        return {tag for region in regions for tag in region.tags}
    found: set[str] = set()
    for batch in read_batches(regions.path, IMAGE_SCHEMA):
        tags = batch.column("regions").flatten().field("tags").flatten()
        found.update(tags.unique().to_pylist())
    return found


def first_regions(
    region_set: RegionSet, max_images: int | None, max_regions: int | None
) -> RegionSet:
    """The beginning of a split, for trials, under a name of its own; None is no limit.

    Images without a region to ask about (a detector leaves some) count too: they are graded.
    """
    if max_images is None and max_regions is None:
        return region_set
    kept = dict.fromkeys(islice(region_set.images, max_images))
    rows = [
        row
        for group in islice(rows_by_image(region_set), max_images)
        if region_set.regions[group[0]].image_id in kept
        for row in group
    ]
    regions = [region_set.regions[row] for row in sorted(rows)[:max_regions]]
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
