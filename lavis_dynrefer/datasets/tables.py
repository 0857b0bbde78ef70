"""Regions of a prepared split, read from a memory-mapped Arrow table as they are asked for.

One row per image, its regions nested in the row. Opening a table reads its index only; all
processes on a machine share the pages they touch.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.structures import ImageRecord, RegionRecord, RegionSet, Rejection

REGION_FIELDS = pa.struct(
    [
        pa.field("region_id", pa.int64(), nullable=False),
        pa.field("box", pa.list_(pa.float64(), 4), nullable=False),  # x1, y1, x2, y2 in pixels
        pa.field("caption", pa.string()),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("attributes", pa.list_(pa.int8())),  # 1 present, 0 absent, -1 unknown
        pa.field("category", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("iscrowd", pa.bool_(), nullable=False),
    ]
)
IMAGE_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("file_name", pa.string(), nullable=False),  # relative to the folder of images
        pa.field("width", pa.int32(), nullable=False),  # pixels
        pa.field("height", pa.int32(), nullable=False),
        pa.field("regions", pa.list_(pa.field("item", REGION_FIELDS, nullable=False))),
    ]
)
TRUTH_SCHEMA = pa.schema([pa.field("image_id", pa.int64(), nullable=False), *REGION_FIELDS])
REJECTION_SCHEMA = pa.schema(
    [
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("image_id", pa.int64()),
        pa.field("region", REGION_FIELDS),  # null where it is no truth
    ]
)
TAGS_SCHEMA = pa.schema([pa.field("tags", pa.list_(pa.int32()))])  # rows of the tag list


class RegionTable(Sequence[RegionRecord]):
    """The regions of a table, image after image.

    Args:
        path: Arrow file of `IMAGE_SCHEMA`.
        tags: tags of the same regions, for those that have none in the table.
    """

    def __init__(self, path: str | Path, tags: TagTable | None = None) -> None:
        self.path = Path(path)
        self.tags = tags
        self._batches = [_RegionBatch(batch) for batch in _read_batches(path, IMAGE_SCHEMA)]
        self._starts = [0]
        for batch in self._batches:
            self._starts.append(self._starts[-1] + len(batch))
        if tags is not None and len(tags) != len(self):
            raise InputError(f"{tags.path} has tags of {len(tags)} regions, {path} has {len(self)}")

    def __len__(self) -> int:
        """Number of regions."""
        return self._starts[-1]

    @overload
    def __getitem__(self, row: int) -> RegionRecord: ...

    @overload
    def __getitem__(self, row: slice) -> list[RegionRecord]: ...

    def __getitem__(self, row: int | slice) -> Any:
        """One region, or a list of them."""
        if isinstance(row, slice):
            return [self[index] for index in range(*row.indices(len(self)))]
        position = row + len(self) if row < 0 else row
        if not 0 <= position < len(self):
            raise IndexError(f"row {row} of {len(self)} regions")
        number = bisect_right(self._starts, position) - 1
        tags = () if self.tags is None else self.tags[position]
        return self._batches[number].record(position - self._starts[number], tags)

    def __iter__(self) -> Iterator[RegionRecord]:
        """All regions in order."""
        return (self[row] for row in range(len(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        """A process that gets a copy maps the file itself."""
        return RegionTable, (self.path, self.tags)

    def captions(self) -> Iterator[str | None]:
        """All captions in order, many times faster than by region."""
        for batch in self._batches:
            yield from batch.captions()

    def image_starts(self) -> np.ndarray:
        """(images + 1,) int64: row of the first region of each image, and the end."""
        parts = [
            batch.offsets[:-1].astype(np.int64) + start
            for batch, start in zip(self._batches, self._starts)
        ]
        return np.append(np.concatenate(parts), len(self))


class _RegionBatch:
    """Columns of some images' regions, without a copy of them."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        nested = batch.column("regions")
        regions = nested.flatten()
        self.offsets = _numbers(nested.offsets, np.int32)
        # Single elements of a memoryview are Python numbers, and quicker to get than an array's.
        self._first_rows = memoryview(self.offsets)
        self._image_ids = memoryview(_numbers(batch.column("image_id"), np.int64))
        self._region_ids = memoryview(_numbers(regions.field("region_id"), np.int64))
        self._boxes = memoryview(_numbers(regions.field("box").flatten(), np.float64))
        self._optional = {
            name: column
            for name in ("caption", "tags", "attributes", "category", "score")
            for column in [regions.field(name)]
            if column.null_count < len(column)
        }
        if regions.field("iscrowd").true_count:
            self._optional["iscrowd"] = regions.field("iscrowd")

    def __len__(self) -> int:
        return len(self._region_ids)

    def captions(self) -> list[str | None]:
        column = self._optional.get("caption")
        return [None] * len(self) if column is None else column.to_pylist()

    def record(self, row: int, tags: tuple[str, ...]) -> RegionRecord:
        optional = {name: column[row].as_py() for name, column in self._optional.items()}
        optional["tags"] = tuple(optional.get("tags") or tags)
        if optional.get("attributes") is not None:
            optional["attributes"] = tuple(optional["attributes"])
        return RegionRecord(
            region_id=self._region_ids[row],
            image_id=self._image_ids[bisect_right(self._first_rows, row) - 1],
            box=tuple(self._boxes[4 * row : 4 * row + 4]),
            **optional,
        )


class ImageTable(Mapping[int, ImageRecord]):
    """The images of a table by their id.

    Args:
        path: Arrow file of `IMAGE_SCHEMA`.
        folder: absolute path of the folder of images.
    """

    def __init__(self, path: str | Path, folder: str | Path) -> None:
        self.path = Path(path)
        self.folder = str(folder)
        batches = _read_batches(path, IMAGE_SCHEMA)
        self._ids = _joined(batches, "image_id", np.int64)
        self._widths = memoryview(_joined(batches, "width", np.int32))
        self._heights = memoryview(_joined(batches, "height", np.int32))
        names = [batch.column("file_name") for batch in batches]
        self._names = pa.chunked_array(names, pa.string()).combine_chunks()
        order = np.argsort(self._ids, kind="stable")
        self._order = memoryview(order)
        self._sorted = memoryview(self._ids[order])

    def __len__(self) -> int:
        """Number of images."""
        return len(self._ids)

    def __iter__(self) -> Iterator[int]:
        """Ids in file order."""
        return iter(self._ids.tolist())

    def __getitem__(self, image_id: int) -> ImageRecord:
        """One image."""
        place = bisect_left(self._sorted, image_id)
        if place == len(self._sorted) or self._sorted[place] != image_id:
            raise KeyError(image_id)
        row = self._order[place]
        path = os.path.join(self.folder, self._names[row].as_py())
        return ImageRecord(image_id, path, self._widths[row], self._heights[row])

    def __reduce__(self) -> tuple[Any, ...]:
        """A process that gets a copy maps the file itself."""
        return ImageTable, (self.path, self.folder)


class TagTable(Sequence[tuple[str, ...]]):
    """Tags of every region of a `RegionTable`, by row.

    Args:
        path: Arrow file of `TAGS_SCHEMA`.
        names: the tag list.
    """

    def __init__(self, path: str | Path, names: Sequence[str]) -> None:
        self.path = Path(path)
        self.names = tuple(names)
        columns = [batch.column("tags") for batch in _read_batches(path, TAGS_SCHEMA)]
        self._starts = np.cumsum([0, *map(len, columns)]).tolist()
        self._ends = [memoryview(_numbers(column.offsets, np.int32)) for column in columns]
        self._tags = [memoryview(_numbers(column.values, np.int32)) for column in columns]

    def __len__(self) -> int:
        """Number of regions."""
        return int(self._starts[-1])

    def __getitem__(self, row: Any) -> Any:
        """Tags of one region."""
        number = bisect_right(self._starts, row) - 1
        within, ends = row - self._starts[number], self._ends[number]
        chosen = self._tags[number][ends[within] : ends[within + 1]]
        return tuple([self.names[index] for index in chosen])

    def __reduce__(self) -> tuple[Any, ...]:
        """A process that gets a copy maps the file itself."""
        return TagTable, (self.path, self.names)


class RecordList(Sequence[Any]):
    """Records that are read when first asked for, and kept: there are few, or all are wanted.

    Args:
        path: Arrow file of `TRUTH_SCHEMA` or `REJECTION_SCHEMA`.
        schema: which of them.
    """

    def __init__(self, path: str | Path, schema: pa.Schema) -> None:
        self.path = Path(path)
        self.schema = schema
        self._batches = _read_batches(path, schema)
        self._records: list[Any] | None = None

    def __len__(self) -> int:
        """Number of records."""
        return sum(batch.num_rows for batch in self._batches)

    def __getitem__(self, row: Any) -> Any:
        """One record, or a list of them; the same object each time."""
        if self._records is None:
            make = _truth if self.schema is TRUTH_SCHEMA else _rejection
            self._records = [make(row) for batch in self._batches for row in batch.to_pylist()]
        return self._records[row]

    def __reduce__(self) -> tuple[Any, ...]:
        """A process that gets a copy maps the file itself."""
        return RecordList, (self.path, self.schema)


def rows_by_image(region_set: RegionSet, most: int | None = None) -> Sequence[Sequence[int]]:
    """Rows of `region_set.regions` that share an image, images in order.

    Args:
        region_set: the regions.
        most: longest group; the rows of an image with more are cut into several. None: no limit.
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


def captions_of(region_set: RegionSet) -> Iterator[str]:
    """The captions of all regions that have one."""
    regions = region_set.regions
    found = (
        regions.captions()
        if isinstance(regions, RegionTable)
        else (region.caption for region in regions)
    )
    return (caption for caption in found if caption is not None)


class _Ranges(Sequence[Sequence[int]]):
    """Neighbouring ranges, as compact as an array."""

    def __init__(self, starts: np.ndarray) -> None:
        self._starts = starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        index %= len(self)
        return range(int(self._starts[index]), int(self._starts[index + 1]))


def _read_batches(path: str | Path, schema: pa.Schema) -> list[pa.RecordBatch]:
    """The batches of a file, mapped into memory.

    Raises:
        ValueError: the file is damaged or of another kind.
    """
    try:
        # The file stays mapped as long as one of its batches is in use.
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"{path} is no Arrow table ({error}); prepare the dataset again"
        ) from error
    if not reader.schema.equals(schema):
        raise InputError(f"{path} is a table of another version; prepare the dataset again")
    return batches


def _numbers(column: pa.Array, dtype: type[np.generic]) -> np.ndarray:
    """A column of numbers without nulls, in place; pyarrow's own way imports pandas first."""
    if not len(column):
        return np.empty(0, dtype)
    return np.frombuffer(column.buffers()[1], dtype)[column.offset : column.offset + len(column)]


def _joined(batches: Sequence[pa.RecordBatch], name: str, dtype: type[np.generic]) -> np.ndarray:
    """A column of numbers of all batches."""
    columns = [_numbers(batch.column(name), dtype) for batch in batches]
    return np.concatenate([np.empty(0, dtype), *columns])


def _record(row: Mapping[str, Any], image_id: int) -> RegionRecord:
    attributes = row["attributes"]
    return RegionRecord(
        region_id=row["region_id"],
        image_id=image_id,
        box=tuple(row["box"]),
        caption=row["caption"],
        tags=tuple(row["tags"] or ()),
        attributes=None if attributes is None else tuple(attributes),
        category=row["category"],
        score=row["score"],
        iscrowd=row["iscrowd"],
    )


def _truth(row: Mapping[str, Any]) -> RegionRecord:
    return _record(row, row["image_id"])


def _rejection(row: Mapping[str, Any]) -> Rejection:
    region = row["region"]
    return Rejection(
        row["reason"],
        row["detail"],
        row["image_id"],
        None if region is None else _record(region, row["image_id"]),
    )
