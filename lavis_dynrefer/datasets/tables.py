"""Memory-mapped Arrow tables of a prepared split, read on demand.

Opening a table reads only its index; all processes on a machine share the mapped pages.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.structures import ImageRecord, RegionRecord, Rejection

_MASK = pa.struct(  # run lengths or polygons, see `RegionRecord`
    [
        pa.field("size", pa.list_(pa.int32(), 2)),  # height and width in pixels
        pa.field("counts", pa.string()),
        pa.field("polygons", pa.list_(pa.list_(pa.float32()))),
    ]
)
REGION_SCHEMA = pa.schema(
    [
        pa.field("region_id", pa.int64(), nullable=False),
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("box", pa.list_(pa.float64(), 4), nullable=False),  # x1, y1, x2, y2 in pixels
        pa.field("caption", pa.string()),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("attributes", pa.list_(pa.int8())),  # 1 present, 0 absent, -1 unknown
        pa.field("category", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("iscrowd", pa.bool_(), nullable=False),
        pa.field("mask", _MASK),
    ]
)
IMAGE_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("file_name", pa.string(), nullable=False),  # relative to the image folder
        pa.field("width", pa.int32(), nullable=False),  # pixels
        pa.field("height", pa.int32(), nullable=False),
    ]
)
REJECTION_SCHEMA = pa.schema(
    [
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("image_id", pa.int64()),
        pa.field("region", pa.struct(list(REGION_SCHEMA))),  # null if it is not graded
    ]
)
TAGS_SCHEMA = pa.schema([pa.field("tags", pa.list_(pa.int32()))])  # indices into the tag list


class _Table:
    """Rows of an Arrow file. A copy in another process maps the file itself.

    Args:
        path: Arrow file of the class's schema.
    """

    schema: ClassVar[pa.Schema]

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.columns = pa.Table.from_batches(read_batches(path, self.schema), self.schema)

    def __len__(self) -> int:
        """Number of rows."""
        return int(self.columns.num_rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path,)


class RegionTable(_Table, Sequence[RegionRecord]):
    """Regions in the order they were written."""

    schema = REGION_SCHEMA

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._batches = [_RegionBatch(batch) for batch in self.columns.to_batches()]
        self._starts = np.cumsum([0, *map(len, self._batches)]).tolist()

    def __getitem__(self, row: Any) -> Any:
        """One region, or a list of them."""
        if isinstance(row, slice):
            return [self[index] for index in range(*row.indices(len(self)))]
        position = row + len(self) if row < 0 else row
        if not 0 <= position < len(self):
            raise IndexError(f"row {row} of {len(self)} regions")
        number = bisect_right(self._starts, position) - 1
        return self._batches[number].record(position - self._starts[number])

    def __iter__(self) -> Iterator[RegionRecord]:
        """All regions in order."""
        return (batch.record(row) for batch in self._batches for row in range(len(batch)))


class _RegionBatch:
    """Regions as columns, without copying them."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        # Single elements of a memoryview are Python numbers, and faster to get than an array's.
        self._region_ids = memoryview(numbers(batch.column("region_id"), np.int64))
        self._image_ids = memoryview(numbers(batch.column("image_id"), np.int64))
        self._boxes = memoryview(numbers(batch.column("box").flatten(), np.float64))
        self._optional = {
            name: column
            for name in ("caption", "tags", "attributes", "category", "score", "mask")
            for column in [batch.column(name)]
            if column.null_count < len(column)
        }
        if batch.column("iscrowd").true_count:
            self._optional["iscrowd"] = batch.column("iscrowd")

    def __len__(self) -> int:
        return len(self._region_ids)

    def record(self, row: int) -> RegionRecord:
        return _record(
            self._region_ids[row],
            self._image_ids[row],
            self._boxes[4 * row : 4 * row + 4],
            **{name: column[row].as_py() for name, column in self._optional.items()},
        )


class ImageTable(_Table, Mapping[int, ImageRecord]):
    """The images of a split by their id, in file order.

    Args:
        path: Arrow file.
        folder: absolute path of the image folder.
    """

    schema = IMAGE_SCHEMA

    def __init__(self, path: str | Path, folder: str | Path) -> None:
        super().__init__(path)
        self.folder = str(folder)
        ids, *self._fields = (column.combine_chunks() for column in self.columns.columns)
        self._rows = {image_id: row for row, image_id in enumerate(ids.to_pylist())}

    def __iter__(self) -> Iterator[int]:
        """Ids in file order."""
        return iter(self._rows)

    def __getitem__(self, image_id: int) -> ImageRecord:
        """One image."""
        row = self._rows[image_id]
        name, width, height = (column[row].as_py() for column in self._fields)
        return ImageRecord(image_id, os.path.join(self.folder, name), width, height)

    def __reduce__(self) -> tuple[Any, ...]:
        return ImageTable, (self.path, self.folder)


class TagTable(_Table, Sequence[list[int]]):
    """The tags of every region of a `RegionTable`, by row, as indices into a tag list."""

    schema = TAGS_SCHEMA

    def __getitem__(self, row: Any) -> Any:
        """Tags of one region."""
        return self.columns["tags"][row].as_py()


class RejectionTable(_Table, Sequence[Rejection]):
    """What was rejected. All of it is read when the first one is used, and kept."""

    schema = REJECTION_SCHEMA

    @cached_property
    def _records(self) -> list[Rejection]:
        return [
            Rejection(**{**row, "region": row["region"] and _record(**row["region"])})
            for row in self.columns.to_pylist()
        ]

    def __getitem__(self, row: Any) -> Any:
        """One rejection, or a list of them; the same object each time."""
        return self._records[row]


def columns_of(regions: Sequence[RegionRecord]) -> pa.Table:
    """Regions as columns of `REGION_SCHEMA`; those of a table are mapped into memory, not read."""
    if isinstance(regions, RegionTable):
        return regions.columns
    return pa.Table.from_pylist([region_row(region) for region in regions], REGION_SCHEMA)


def region_row(region: RegionRecord) -> dict[str, Any]:
    """A region as a row of `REGION_SCHEMA`."""
    mask = region.mask
    if mask is not None and not isinstance(mask, Mapping):
        mask = {"polygons": mask}
    return {**vars(region), "tags": region.tags or None, "mask": mask}


def read_batches(path: str | Path, schema: pa.Schema) -> list[pa.RecordBatch]:
    """The batches of an Arrow file, mapped into memory.

    Raises:
        InputError: the file is damaged or has another schema.
    """
    try:
        # The file stays mapped as long as one of its batches is in use.
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"{path} is not an Arrow table ({error}); prepare the dataset again"
        ) from error
    if not reader.schema.equals(schema):
        raise InputError(f"{path} is a table of another version; prepare the dataset again")
    return batches


def numbers(column: pa.Array, dtype: type[np.generic]) -> np.ndarray:
    """A column of numbers without nulls, not copied; pyarrow's own way imports pandas first."""
    if not len(column):
        return np.empty(0, dtype)
    return np.frombuffer(column.buffers()[1], dtype)[column.offset : column.offset + len(column)]


def _record(
    region_id: int,
    image_id: int,
    box: Sequence[float],
    tags: Sequence[str] | None = None,
    attributes: Sequence[int] | None = None,
    mask: Mapping[str, Any] | None = None,
    **fields: Any,
) -> RegionRecord:
    """A region with tuples instead of Arrow's lists."""
    return RegionRecord(
        region_id,
        image_id,
        tuple(box),
        tags=tuple(tags or ()),
        attributes=None if attributes is None else tuple(attributes),
        mask=None if mask is None else _mask(**mask),
        **fields,
    )


def _mask(size: list[int] | None, counts: str | None, polygons: list[list[float]] | None) -> Any:
    return {"size": size, "counts": counts} if polygons is None else polygons
