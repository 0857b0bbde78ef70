"""Tags of a prepared split, found once by methods that are too slow to repeat every epoch.

Beside the tables of a split lie, for each tag list and method, `tags-<key>.arrow` with the tags of
every region and `tags-<key>.json` with the list and the counts. The work is done in parts that
survive an interruption.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock

from lavis_dynrefer.cores import map_in_processes
from lavis_dynrefer.datasets.tables import (
    TAGS_SCHEMA,
    RegionTable,
    TagTable,
    columns_of,
    read_batches,
)
from lavis_dynrefer.paths import replace_file
from lavis_dynrefer.vocab import build_tagger

PART = 20000  # captions in a part; at most one part per process is lost by an interruption
Progress = Callable[[int, int], None]
"""(captions done, captions in all), called from time to time."""
_Job = tuple[Path, int, int, tuple[Path, str, tuple[str, ...]]]
"""Part to write, its first row, rows in it, arguments of `_tools`."""


def prepare_tags(
    regions: RegionTable,
    names: Sequence[str],
    method: str,
    *,
    processes: int = 1,
    progress: Progress | None = None,
) -> TagTable:
    """The tags of the captions of a prepared split, by row.

    Args:
        regions: of the split.
        names: the tag list.
        method: one of `vocab.TAG_METHODS`.
        processes: number of worker processes.
        progress: called after each part.

    Raises:
        InputError: an unknown method.
        MissingPackageError: the method's packages are not installed.
    """
    path = tags_path(regions, names, method)
    with FileLock(path.with_name(f".{path.stem}.lock")):
        if not path.exists():
            parts = path.with_name(f".{path.stem}")
            parts.mkdir(exist_ok=True)
            paths = _write_parts(regions, names, method, parts, processes, progress)
            counts = _join(paths, path)
            about = {"method": method, "regions": len(regions), **counts, "tags": list(names)}
            text = json.dumps(about, indent=1, ensure_ascii=False)
            path.with_suffix(".json").write_text(text, encoding="utf-8")
            shutil.rmtree(parts)
            _tools.cache_clear()
    return TagTable(path)


def tags_path(regions: RegionTable, names: Sequence[str], method: str) -> Path:
    """Where `prepare_tags` keeps the tags of a split."""
    key = hashlib.sha256(json.dumps([method, list(names)]).encode()).hexdigest()[:10]
    return regions.path.with_name(f"tags-{key}.arrow")


def _write_parts(
    regions: RegionTable,
    names: Sequence[str],
    method: str,
    folder: Path,
    processes: int,
    progress: Progress | None,
) -> list[Path]:
    """Parts of `TAGS_SCHEMA`; those of an earlier attempt are kept."""
    paths = [folder / f"{number:05d}.arrow" for number in range(-(-len(regions) // PART))]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    tools = (regions.path, method, tuple(names))
    _tools(*tools)  # to fail here rather than in every process
    jobs = [(paths[number], PART * number, PART, tools) for number in missing]
    for done, _ in enumerate(map_in_processes(_write_part, jobs, min(processes, len(jobs))), 1):
        if progress:
            rows = (len(paths) - len(jobs) + done) * PART
            progress(min(rows, len(regions)), len(regions))
    return paths


def _write_part(job: _Job) -> None:
    path, first, count, tools = job
    column, tagger, index = _tools(*tools)
    captions = column.slice(first, count).to_pylist()
    rows = [[index[name] for name in tagger(caption)] if caption else [] for caption in captions]
    unfinished = path.with_suffix(".unfinished")
    with pa.ipc.new_file(str(unfinished), TAGS_SCHEMA) as writer:
        column = pa.array(rows, TAGS_SCHEMA.field("tags").type)
        writer.write_batch(pa.RecordBatch.from_arrays([column], schema=TAGS_SCHEMA))
    replace_file(unfinished, path)


@lru_cache(maxsize=1)
def _tools(path: Path, method: str, names: tuple[str, ...]) -> tuple[Any, ...]:
    """The captions, the tagger and the index of each tag, made once in every process."""
    captions = columns_of(RegionTable(path))["caption"]
    return captions, build_tagger(method, names), {name: n for n, name in enumerate(names)}


def _join(paths: Sequence[Path], target: Path) -> dict[str, int]:
    """One table of all parts; returns counts for the manifest."""
    unfinished = target.with_suffix(".unfinished")
    total = without = 0
    with pa.ipc.new_file(str(unfinished), TAGS_SCHEMA) as writer:
        for path in paths:
            for batch in read_batches(path, TAGS_SCHEMA):
                writer.write_batch(batch)
                sizes = batch.column("tags").value_lengths().to_numpy(zero_copy_only=False)
                total += int(sizes.sum())
                without += int((sizes == 0).sum())
    replace_file(unfinished, target)
    return {"tags_given": total, "regions_without_tags": without}
