"""Files of results and of boxes: our own format and those of other tools.

One module per file format, reading beside writing. A new format is one module here and one line
in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Callable, NamedTuple

from lavis_dynrefer.errors import InputError, choice_problem
from lavis_dynrefer.formats.box_file import read_box_file
from lavis_dynrefer.formats.coco_json import write_coco
from lavis_dynrefer.formats.csv_table import write_csv, write_excel_csv
from lavis_dynrefer.formats.fiftyone import write_fiftyone
from lavis_dynrefer.formats.image_result import ImageResult
from lavis_dynrefer.formats.json_stream import replacing
from lavis_dynrefer.formats.jsonl import ROWS, ResultLog, read_results, write_json, write_jsonl
from lavis_dynrefer.formats.label_studio import write_label_studio

__all__ = [
    "FORMATS",
    "ROWS",
    "ImageResult",
    "ResultLog",
    "read_box_file",
    "read_results",
    "write_results",
]


class Format(NamedTuple):
    """How results are written.

    Args:
        files: names of the files.
        write: takes the results and one open text file per name; it may iterate over the results
            several times.
    """

    files: tuple[str, ...]
    write: Callable[..., None]


FORMATS: Mapping[str, Format] = {
    "jsonl": Format((ROWS,), write_jsonl),
    "json": Format(("results.json",), write_json),
    "coco": Format(("coco.json",), write_coco),
    "csv": Format(("results.csv",), write_csv),
    "excel-csv": Format(("results_excel.csv",), write_excel_csv),
    "label-studio": Format(
        ("label_studio/tasks.json", "label_studio/labels.xml"), write_label_studio
    ),
    "fiftyone": Format(("fiftyone/labels.json", "fiftyone/data.json"), write_fiftyone),
}


def write_results(
    results: Collection[ImageResult], folder: Path, formats: Iterable[str]
) -> list[Path]:
    """Write results in some of `FORMATS`; a file appears when it is complete.

    Args:
        results: a list or a `ResultLog`.
        folder: where to write; created if it does not exist.
        formats: names of formats.

    Returns:
        The files written.

    Raises:
        InputError: an unknown format.
    """
    written = []
    for name in formats:
        if problem := choice_problem("format", name, FORMATS):
            raise InputError(problem)
        paths = [folder / file_name for file_name in FORMATS[name].files]
        with ExitStack() as stack:
            files = [stack.enter_context(replacing(path)) for path in paths]
            FORMATS[name].write(results, *files)
        written += paths
    return written
