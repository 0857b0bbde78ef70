"""Regions of a prepared split, read on demand from memory-mapped Arrow tables.

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
from lavis_dynrefer.structures import ImageRecord, RegionRecord, Rejection

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
        pa.field("file_name", pa.string(), nullable=False),  # relative to the image folder
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
        pa.field("region", REGION_FIELDS),  # null if it is not graded
    ]
)
TAGS_SCHEMA = pa.schema([pa.field("tags", pa.list_(pa.int32()))])  # indices into the tag list


class RegionTable(Sequence[RegionRecord]):
    """The regions of a table, image after image.

    Args:
        path: Arrow file of `IMAGE_SCHEMA`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._batches = [_RegionBatch(batch) for batch in read_batches(path, IMAGE_SCHEMA)]
        self._starts = [0]
        for batch in self._batches:
            self._starts.append(self._starts[-1] + len(batch))

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
        return self._batches[number].record(position - self._starts[number])

    def __iter__(self) -> Iterator[RegionRecord]:
        """All regions in order."""
        return (self[row] for row in range(len(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process maps the file itself."""
        return RegionTable, (self.path,)

    def captions(self, first: int = 0) -> Iterator[str | None]:
        """All captions from a row on, many times faster than region by region."""
        for batch, start in zip(self._batches, self._starts):
            if start + len(batch) > first:
                yield from batch.captions()[max(first - start, 0) :]

    def image_starts(self) -> np.ndarray:
        """(images + 1,) int64: row of the first region of each image, and the end."""
        parts = [
            batch.offsets[:-1].astype(np.int64) + start
            for batch, start in zip(self._batches, self._starts)
        ]
        return np.append(np.concatenate(parts), len(self))


class _RegionBatch:
    """The regions of some images as columns, without copying them."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        nested = batch.column("regions")
        regions = nested.flatten()
        self.offsets = _numbers(nested.offsets, np.int32)
        # Single elements of a memoryview are Python numbers, and faster to get than an array's.
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

    def record(self, row: int) -> RegionRecord:
        return _record(
            self._region_ids[row],
            self._image_ids[bisect_right(self._first_rows, row) - 1],
            self._boxes[4 * row : 4 * row + 4],
            **{name: column[row].as_py() for name, column in self._optional.items()},
        )


class ImageTable(Mapping[int, ImageRecord]):
    """The images of a table by their id.

    Args:
        path: Arrow file of `IMAGE_SCHEMA`.
        folder: absolute path of the image folder.
    """

    def __init__(self, path: str | Path, folder: str | Path) -> None:
        self.path = Path(path)
        self.folder = str(folder)
        batches = read_batches(path, IMAGE_SCHEMA)
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
        """Another process maps the file itself."""
        return ImageTable, (self.path, self.folder)


class TagTable(Sequence[list[int]]):
    """The tags of every region of a `RegionTable` as indices into a tag list, by row.

    Args:
        path: Arrow file of `TAGS_SCHEMA`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        columns = [batch.column("tags") for batch in read_batches(path, TAGS_SCHEMA)]
        self._column = pa.chunked_array(columns, TAGS_SCHEMA.field("tags").type)

    def __len__(self) -> int:
        """Number of regions."""
        return len(self._column)

    def __getitem__(self, row: Any) -> Any:
        """Tags of one region."""
        return self._column[row].as_py()

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process maps the file itself."""
        return TagTable, (self.path,)


class RecordList(Sequence[Any]):
    """Truth or rejections: all of them are read when the first one is asked for, and kept.

    Args:
        path: Arrow file of `TRUTH_SCHEMA` or `REJECTION_SCHEMA`.
        schema: which of the two.
    """

    def __init__(self, path: str | Path, schema: pa.Schema) -> None:
        self.path = Path(path)
        self.schema = schema
        self._batches = read_batches(path, schema)
        self._records: list[Any] | None = None

    def __len__(self) -> int:
        """Number of records."""
        return sum(batch.num_rows for batch in self._batches)

    def __getitem__(self, row: Any) -> Any:
        """One record, or a list of them; the same object each time."""
        if self._records is None:
            make = _record if self.schema is TRUTH_SCHEMA else _rejection
            self._records = [make(**row) for batch in self._batches for row in batch.to_pylist()]
        return self._records[row]

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process maps the file itself."""
        return RecordList, (self.path, self.schema)


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
            f"{path} is no Arrow table ({error}); prepare the dataset again"
        ) from error
    if not reader.schema.equals(schema):
        raise InputError(f"{path} is a table of another version; prepare the dataset again")
    return batches


def _numbers(column: pa.Array, dtype: type[np.generic]) -> np.ndarray:
    """A column of numbers without nulls, not copied; pyarrow's own way imports pandas first."""
    if not len(column):
        return np.empty(0, dtype)
    return np.frombuffer(column.buffers()[1], dtype)[column.offset : column.offset + len(column)]


def _joined(batches: Sequence[pa.RecordBatch], name: str, dtype: type[np.generic]) -> np.ndarray:
    """A column of numbers of all batches."""
    columns = [_numbers(batch.column(name), dtype) for batch in batches]
    return np.concatenate([np.empty(0, dtype), *columns])


def _record(
    region_id: int,
    image_id: int,
    box: Sequence[float],
    tags: Sequence[str] | None = None,
    attributes: Sequence[int] | None = None,
    **fields: Any,
) -> RegionRecord:
    """A region as it was before Arrow made lists of its tuples."""
    return RegionRecord(
        region_id,
        image_id,
        tuple(box),
        tags=tuple(tags or ()),
        attributes=None if attributes is None else tuple(attributes),
        **fields,
    )


def _rejection(region: Mapping[str, Any] | None, **fields: Any) -> Rejection:
    if region is not None:
        return Rejection(region=_record(image_id=fields["image_id"], **region), **fields)
    return Rejection(**fields)
