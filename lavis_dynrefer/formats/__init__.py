"""Answers about regions on disk: our own rows, and the formats of other tools.

`FORMATS` maps a format's name to its files; adding one is one module here and one line there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Callable, TextIO

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.coco_json import from_coco, to_coco, write_coco
from lavis_dynrefer.formats.csv_table import from_csv, to_csv
from lavis_dynrefer.formats.fiftyone import to_fiftyone, write_labels, write_paths
from lavis_dynrefer.formats.image_result import ImageResult
from lavis_dynrefer.formats.json_stream import replacing
from lavis_dynrefer.formats.jsonl import ROWS, ResultLog, read_results, write_json, write_jsonl
from lavis_dynrefer.formats.label_studio import label_config, to_label_studio, write_tasks

__all__ = [
    "FORMATS",
    "ROWS",
    "ImageResult",
    "ResultLog",
    "from_coco",
    "from_csv",
    "label_config",
    "read_results",
    "to_coco",
    "to_csv",
    "to_fiftyone",
    "to_label_studio",
    "write_results",
]

Writer = Callable[[Collection[ImageResult], TextIO], None]


def _write_label_config(results: Collection[ImageResult], file: TextIO) -> None:
    file.write(label_config(results))


FORMATS: Mapping[str, Mapping[str, Writer]] = {
    "jsonl": {ROWS: write_jsonl},
    "json": {"results.json": write_json},
    "coco": {"coco.json": write_coco},
    "csv": {"results.csv": to_csv},
    "label-studio": {
        "label_studio/tasks.json": write_tasks,
        "label_studio/labels.xml": _write_label_config,
    },
    "fiftyone": {"fiftyone/labels.json": write_labels, "fiftyone/data.json": write_paths},
}


def write_results(
    results: Collection[ImageResult], folder: Path, formats: Iterable[str]
) -> list[Path]:
    """Write results in some of `FORMATS`; a file appears when it is complete.

    Args:
        results: a list or a `ResultLog`; it is gone through several times.
        folder: where to; made if need be.
        formats: names of formats.

    Returns:
        The files written.

    Raises:
        ValueError: an unknown format.
    """
    written = []
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"format: expected one of {list(FORMATS)}, got {name!r}")
        for file_name, write in FORMATS[name].items():
            path = folder / file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                write(results, file)
            written.append(path)
    return written
