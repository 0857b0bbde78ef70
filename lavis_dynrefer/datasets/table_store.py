"""Writes the regions of one split as Arrow tables while they are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lavis_dynrefer.datasets.sources.collector import MemoryStore
from lavis_dynrefer.datasets.tables import (
    IMAGE_SCHEMA,
    REGION_FIELDS,
    REJECTION_SCHEMA,
    TRUTH_SCHEMA,
    ImageTable,
    RecordList,
    RegionTable,
)
from lavis_dynrefer.structures import ImageRecord, RegionRecord, RegionSet, Rejection

ROWS = 16384  # regions held before they are written
IMAGES = 2048  # in a batch of the final table
_SPOOL = "spool.arrow"


class TableStore(MemoryStore):
    """Keeps the records of one split on disk, so that memory does not grow with the dataset.

    Regions are spooled in the order they come and grouped by image in the end.

    Args:
        folder: an empty folder for `regions.arrow`, `rejected.arrow` and `truth.arrow`.
        image_folder: absolute path of the folder that all images lie below.
    """

    def __init__(self, folder: Path, image_folder: Path) -> None:
        self.folder = folder
        self.image_folder = image_folder
        self.regions = _Spool(folder / _SPOOL, TRUTH_SCHEMA, _region_row)
        self.truth = _Spool(folder / "truth.arrow", TRUTH_SCHEMA, _region_row)
        self.rejected = _Spool(folder / "rejected.arrow", REJECTION_SCHEMA, _rejection_row)

    def finish(self, images: Mapping[int, ImageRecord], **about: Any) -> RegionSet:
        """The split, read from its tables."""
        for spool in (self.regions, self.truth, self.rejected):
            spool.close()
        spooled = pa.ipc.open_file(pa.memory_map(str(self.folder / _SPOOL))).read_all()
        with pa.ipc.new_file(str(self.folder / "regions.arrow"), IMAGE_SCHEMA) as writer:
            for batch in _by_image(spooled, list(images.values()), self.image_folder):
                writer.write_batch(batch)
        del spooled
        (self.folder / _SPOOL).unlink()
        return read_split(self.folder, self.image_folder, **about)


def read_split(folder: Path, image_folder: str | Path, **about: Any) -> RegionSet:
    """A split from the three tables of a `TableStore`.

    Args:
        folder: holds the tables.
        image_folder: absolute path of the image folder.
        about: the other fields of the `RegionSet`.

    Raises:
        InputError: a table is damaged, missing or of another version.
    """
    return RegionSet(
        images=ImageTable(folder / "regions.arrow", image_folder),
        regions=RegionTable(folder / "regions.arrow"),
        rejected=RecordList(folder / "rejected.arrow", REJECTION_SCHEMA),
        truth_regions=RecordList(folder / "truth.arrow", TRUTH_SCHEMA),
        **about,
    )


class _Spool:
    """An Arrow file that grows record by record.

    Args:
        path: the file.
        schema: of its rows.
        row_of: record -> row.
    """

    def __init__(
        self, path: Path, schema: pa.Schema, row_of: Callable[[Any], Mapping[str, Any]]
    ) -> None:
        self._type = pa.struct(list(schema))
        self._row_of = row_of
        self._writer = pa.ipc.new_file(str(path), schema)
        self._rows: list[Mapping[str, Any]] = []

    def append(self, record: Any) -> None:
        self._rows.append(self._row_of(record))
        if len(self._rows) >= ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            # All columns at once: takes a third of the time of one after the other.
            rows = pa.array(self._rows, self._type)
            self._writer.write_batch(pa.RecordBatch.from_struct_array(rows))
            self._rows = []


def _region_row(region: RegionRecord) -> dict[str, Any]:
    return {**vars(region), "tags": region.tags or None}


def _rejection_row(rejection: Rejection) -> dict[str, Any]:
    region = rejection.region
    return {**vars(rejection), "region": None if region is None else _region_row(region)}


def _by_image(
    spooled: pa.Table, images: list[ImageRecord], image_folder: Path
) -> Iterator[pa.RecordBatch]:
    """Batches of `IMAGE_SCHEMA`: images as listed, regions of each in the order they came."""
    ids = np.array([image.image_id for image in images], dtype=np.int64)
    place = np.argsort(ids, kind="stable")
    owners = place[np.searchsorted(ids[place], spooled["image_id"].to_numpy())]
    counts = np.bincount(owners, minlength=len(images))
    ends = np.cumsum(counts)
    order = np.argsort(owners, kind="stable")
    is_ordered = bool((order == np.arange(len(order))).all())
    regions = spooled.drop_columns(["image_id"])
    for first in range(0, len(images), IMAGES):
        some = images[first : first + IMAGES]
        start, end = ends[first] - counts[first], ends[first + len(some) - 1]
        rows = regions.slice(start, end - start)
        if not is_ordered:
            rows = regions.take(pa.array(order[start:end]))
        yield _image_batch(some, counts[first : first + len(some)], rows, image_folder)


def _image_batch(
    images: list[ImageRecord], counts: np.ndarray, regions: pa.Table, image_folder: Path
) -> pa.RecordBatch:
    columns = [regions[name].combine_chunks() for name in regions.column_names]
    nested = pa.ListArray.from_arrays(
        pa.array(np.append(0, np.cumsum(counts)).astype(np.int32)),
        pa.StructArray.from_arrays(columns, fields=list(REGION_FIELDS)),
    )
    return pa.RecordBatch.from_arrays(
        [
            pa.array([image.image_id for image in images], pa.int64()),
            pa.array([os.path.relpath(image.path, image_folder) for image in images], pa.string()),
            pa.array([image.width for image in images], pa.int32()),
            pa.array([image.height for image in images], pa.int32()),
            nested.cast(IMAGE_SCHEMA.field("regions").type),
        ],
        schema=IMAGE_SCHEMA,
    )
