"""Tags of a prepared split, worked out once for methods that are too slow to repeat every epoch.

Beside the tables of a split lie, for each tag list and method, `tags-<key>.arrow` with the tags of
every region and `tags-<key>.json` with the list and the counts. The work is done in parts that
survive an interruption.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Optional

import pyarrow as pa
from filelock import FileLock

from lavis_dynrefer.datasets.tables import TAGS_SCHEMA, RegionTable, TagTable
from lavis_dynrefer.vocab import build_tagger

PART = 20000  # captions whose tags are lost at most when the work is interrupted
Progress = Callable[[int, int], None]
"""(captions done, captions in all), called from time to time."""

_Captions = list[Optional[str]]
_Rows = list[list[int]]


class _RowsOf:
    """Caption -> rows of the tag list; made anew in every process."""

    def __init__(self, method: str, names: Sequence[str]) -> None:
        self._tagger = build_tagger(method, names)
        self._row = {name: row for row, name in enumerate(names)}

    def __call__(self, captions: _Captions) -> _Rows:
        return [
            [self._row[name] for name in self._tagger(caption)] if caption else []
            for caption in captions
        ]


def prepare_tags(
    regions: RegionTable,
    names: Sequence[str],
    method: str,
    *,
    processes: int = 1,
    progress: Progress | None = None,
) -> RegionTable:
    """The same regions with the tags of their captions.

    Args:
        regions: a prepared split.
        names: the tag list.
        method: one of `vocab.TAG_METHODS`.
        processes: how many work at once.
        progress: is told how far the work is.

    Raises:
        ValueError: an unknown method.
        ImportError: the method's libraries are not installed.
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
    return RegionTable(regions.path, TagTable(path, names))


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
    captions = regions.captions()
    parts = (list(islice(captions, PART)) for _ in paths)
    missing = [path for path in paths if not path.exists()]
    work = (part for path, part in zip(paths, parts) if path in set(missing))
    with _mapper(method, names, processes if len(missing) > 1 else 1) as apply:
        for done, (path, rows) in enumerate(zip(missing, apply(work)), len(paths) - len(missing)):
            unfinished = path.with_suffix(".unfinished")
            with pa.ipc.new_file(str(unfinished), TAGS_SCHEMA) as writer:
                column = pa.array(rows, TAGS_SCHEMA.field("tags").type)
                writer.write_batch(pa.RecordBatch.from_arrays([column], schema=TAGS_SCHEMA))
            os.replace(unfinished, path)
            if progress:
                progress(min((done + 1) * PART, len(regions)), len(regions))
    return paths


@contextmanager
def _mapper(
    method: str, names: Sequence[str], processes: int
) -> Iterator[Callable[[Iterable[_Captions]], Iterator[_Rows]]]:
    """Applies `_RowsOf` to parts in order, in this process or in several."""
    rows_of = _RowsOf(method, names)  # also to fail here rather than in every process
    if processes == 1:
        yield lambda parts: map(rows_of, parts)
        return
    with ProcessPoolExecutor(
        processes, get_context("spawn"), initializer=_start, initargs=(method, names)
    ) as pool:
        yield lambda parts: _in_order(pool, parts, processes)


def _in_order(pool: ProcessPoolExecutor, parts: Iterable[_Captions], ahead: int) -> Iterator[_Rows]:
    """Like `pool.map`, but with only a few parts in memory."""
    parts = iter(parts)
    waiting = [pool.submit(_work, part) for part in islice(parts, ahead + 1)]
    while waiting:
        rows = waiting.pop(0).result()
        waiting += [pool.submit(_work, part) for part in islice(parts, 1)]
        yield rows


_worker: list[_RowsOf] = []  # of a process of the pool


def _start(method: str, names: Sequence[str]) -> None:
    _worker.append(_RowsOf(method, names))


def _work(captions: _Captions) -> _Rows:
    return _worker[0](captions)


def _join(paths: Sequence[Path], target: Path) -> dict[str, int]:
    """One table of all parts; returns counts for the manifest."""
    unfinished = target.with_suffix(".unfinished")
    total = without = 0
    with pa.ipc.new_file(str(unfinished), TAGS_SCHEMA) as writer:
        for path in paths:
            for batch in pa.ipc.open_file(pa.memory_map(str(path))).read_all().to_batches():
                writer.write_batch(batch)
                sizes = batch.column("tags").value_lengths().to_numpy(zero_copy_only=False)
                total += int(sizes.sum())
                without += int((sizes == 0).sum())
    os.replace(unfinished, target)
    return {"tags_given": total, "regions_without_tags": without}
