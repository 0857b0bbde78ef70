"""Writes the records of a split to Arrow tables while the raw files are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from lavis_dynrefer.datasets.sources.region_collector import MemoryStore
from lavis_dynrefer.datasets.tables import (
    IMAGE_SCHEMA,
    REGION_SCHEMA,
    REJECTION_SCHEMA,
    ImageTable,
    RegionTable,
    RejectionTable,
    region_row,
)
from lavis_dynrefer.structures import ImageRecord, RegionSet, Rejection

ROWS = 16384  # in a batch, the unit of writing


class TableStore(MemoryStore):
    """Keeps the records of one split on disk, so that memory does not grow with the dataset.

    Args:
        folder: an empty folder for the tables.
        image_folder: absolute path of the folder that all images lie below.
    """

    def __init__(self, folder: Path, image_folder: Path) -> None:
        self.folder = folder
        self.image_folder = image_folder
        super().__init__(
            regions=_Writer(folder / "regions.arrow", REGION_SCHEMA, region_row),
            truth=_Writer(folder / "truth.arrow", REGION_SCHEMA, region_row),
            rejected=_Writer(folder / "rejected.arrow", REJECTION_SCHEMA, _rejection_row),
        )

    def finish(self, images: Mapping[int, ImageRecord], **about: Any) -> RegionSet:
        """The split, read from its tables."""
        listed = _Writer(self.folder / "images.arrow", IMAGE_SCHEMA, self._image_row)
        for image in images.values():
            listed.append(image)
        for writer in (self.regions, self.truth, self.rejected, listed):
            writer.close()
        return read_split(self.folder, self.image_folder, **about)

    def _image_row(self, image: ImageRecord) -> dict[str, Any]:
        # Forward slashes, which all systems read; another drive of Windows has no relative path.
        try:
            name = Path(os.path.relpath(image.path, self.image_folder))
        except ValueError:
            name = Path(image.path)
        return {**vars(image), "file_name": name.as_posix()}


def read_split(folder: Path, image_folder: str | Path, **about: Any) -> RegionSet:
    """A split from the tables of a `TableStore`.

    Args:
        folder: holds the tables.
        image_folder: absolute path of the image folder.
        about: the other fields of the `RegionSet`.

    Raises:
        InputError: a table is damaged, missing or of another version.
    """
    return RegionSet(
        images=ImageTable(folder / "images.arrow", image_folder),
        regions=RegionTable(folder / "regions.arrow"),
        truth_regions=RegionTable(folder / "truth.arrow"),
        rejected=RejectionTable(folder / "rejected.arrow"),
        **about,
    )


class _Writer:
    """An Arrow file that grows record by record.

    Args:
        path: the file.
        schema: of its rows.
        row_of: record -> row, with all names of the schema and perhaps more.
    """

    def __init__(
        self, path: Path, schema: pa.Schema, row_of: Callable[[Any], Mapping[str, Any]]
    ) -> None:
        self._type = pa.struct(list(schema))
        self._row_of = row_of
        self._file = pa.ipc.new_file(str(path), schema)
        self._rows: list[Mapping[str, Any]] = []

    def append(self, record: Any) -> None:
        self._rows.append(self._row_of(record))
        if len(self._rows) >= ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        if self._rows:
            # All columns at once: takes a third of the time of one after the other.
            rows = pa.array(self._rows, self._type)
            self._file.write_batch(pa.RecordBatch.from_struct_array(rows))
            self._rows = []


def _rejection_row(rejection: Rejection) -> dict[str, Any]:
    region = rejection.region
    return {**vars(rejection), "region": None if region is None else region_row(region)}
