"""Where `dynrefer predict` writes: into a folder, a single file, or to standard output."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lavis_dynrefer.errors import InputError, choice_problem
from lavis_dynrefer.formats import FORMATS, ResultLog, write_results
from lavis_dynrefer.formats.json_stream import replacing
from lavis_dynrefer.images import readable_suffixes

_FILES = {  # suffix of --output -> formats of one such file; the first is the default
    ".json": ("json", "coco"),
    ".jsonl": ("jsonl",),
    ".csv": ("csv", "excel-csv"),
}
_UNFINISHED = ".unfinished"  # added to the name of a file, its folder until it is complete

# Names that are meant as a file, of a kind that is not written.
_OTHER_FILES = frozenset(
    f".{name}"
    for names in ("gz htm html parquet pdf pkl tsv txt", "xls xlsx xml yaml yml zip")
    for name in names.split()
)


@dataclass(frozen=True)
class OutputTarget:
    """Where answers go.

    Args:
        path: a folder, or a file if `is_file`; None for standard output.
        formats: names of formats to write besides the rows.
        is_file: whether `path` is a single file.
    """

    path: Path | None
    formats: Sequence[str]
    is_file: bool = False

    @classmethod
    def of(cls, arguments: argparse.Namespace, formats: Sequence[str]) -> OutputTarget:
        """The target that the arguments name.

        Raises:
            InputError: unknown formats, or some that do not go with --output or an option.
        """
        path: Path | None = arguments.output
        for name in formats:
            problem = choice_problem("--format", name, FORMATS)
            if problem:
                raise InputError(problem)
        if path is None and sum(len(FORMATS[name].files) for name in formats) > 1:
            raise InputError(
                f"--format {','.join(formats)}: without --output expected one format of one file"
            )
        is_file = path is not None and _is_file_name(path)
        for option in ("draw", "explain"):
            if getattr(arguments, option) and (path is None or is_file):
                raise InputError(f"--{option} needs --output with a folder")
        if path is None or not is_file:
            return cls(path, formats)
        _check_free(path, arguments)
        return cls(path, [_format_of(path, formats)], is_file=True)

    @property
    def keeps_rows(self) -> bool:
        """Whether a stopped run can be continued."""
        return self.path is not None

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """The folder of the rows while they are made."""
        if self.path is None:
            with tempfile.TemporaryDirectory() as scratch:
                yield Path(scratch)
        elif self.is_file:
            yield self.path.with_name(self.path.name + _UNFINISHED)
        else:
            yield self.path

    def write(self, log: ResultLog) -> list[Path]:
        """Write the formats; returns the files.

        Raises:
            InputError: they cannot be written.
        """
        if self.path is None or not self.is_file:
            return write_results(log, log.path.parent, self.formats)
        with replacing(self.path) as file:
            FORMATS[self.formats[0]].write(log, file)
        return [self.path]

    def clean(self) -> None:
        """Remove the rows that a complete file does not need."""
        if self.path is not None and self.is_file:
            shutil.rmtree(self.path.with_name(self.path.name + _UNFINISHED), ignore_errors=True)


def _is_file_name(path: Path) -> bool:
    suffix = path.suffix.lower()
    if path.is_dir():
        return False
    if suffix in _OTHER_FILES or suffix in readable_suffixes():
        raise InputError(
            f"--output {path}: expected a folder, or a file that ends in {', '.join(_FILES)}"
        )
    return suffix in _FILES


def _format_of(path: Path, formats: Sequence[str]) -> str:
    known = _FILES[path.suffix.lower()]
    name = formats[0] if formats else known[0]
    if len(formats) > 1 or name not in known:
        raise InputError(
            f"--output {path} with --format {','.join(formats)}: this file can hold "
            f"{' or '.join(known)}; name a folder for other formats"
        )
    return name


def _check_free(path: Path, arguments: argparse.Namespace) -> None:
    """Refuse to replace a file, unless the run starts over; never the file of boxes."""
    if not path.exists():
        return
    if arguments.boxes and os.path.samefile(path, arguments.boxes):
        raise InputError(f"--output {path} is the file of boxes; name another file")
    if arguments.resume:
        raise InputError(f"--output {path} exists; name another file, or replace it: --no-resume")
