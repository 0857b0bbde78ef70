"""Files of results and of boxes: our own format and those of other tools.

One module per file format, reading beside writing. A new format is one module here and one line
in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lavis_dynrefer.errors import InputError, choice_problem
from lavis_dynrefer.lazy_names import lazy_names

if TYPE_CHECKING:
    from lavis_dynrefer.formats.box_file import read_box_file
    from lavis_dynrefer.formats.image_result import ImageResult
    from lavis_dynrefer.formats.jsonl import ROWS, ResultLog, read_results

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
        writer: module of this package, and its function.
    """

    files: tuple[str, ...]
    writer: str

    def write(self, results: Iterable[ImageResult], *files: Any) -> None:
        """Write results, which may be iterated over several times, into one open file per name."""
        module, _, function = self.writer.partition(".")
        getattr(import_module(f"{__name__}.{module}"), function)(results, *files)


FORMATS: Mapping[str, Format] = {
    "jsonl": Format(("results.jsonl",), "jsonl.write_jsonl"),
    "json": Format(("results.json",), "jsonl.write_json"),
    "coco": Format(("coco.json",), "coco_json.write_coco"),
    "csv": Format(("results.csv",), "csv_table.write_csv"),
    "excel-csv": Format(("results_excel.csv",), "csv_table.write_excel_csv"),
    "label-studio": Format(
        ("label_studio/tasks.json", "label_studio/labels.xml"), "label_studio.write_label_studio"
    ),
    "fiftyone": Format(("fiftyone/labels.json", "fiftyone/data.json"), "fiftyone.write_fiftyone"),
}

__getattr__ = lazy_names(
    __name__,
    {
        "box_file": ("read_box_file",),
        "image_result": ("ImageResult",),
        "jsonl": ("ROWS", "ResultLog", "read_results"),
    },
)


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
    from lavis_dynrefer.formats.json_stream import replacing

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
