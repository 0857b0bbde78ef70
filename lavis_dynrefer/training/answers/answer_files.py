"""Files of answers in the folder `result` of a run, one json line per region.

Every process appends to a file of its own while it answers, so that a run that breaks off loses
nothing but the batches under way. At the end rank 0 writes all answers into one file, and these are
removed.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.json_stream import dump_list, replacing
from lavis_dynrefer.structures import RegionPrediction, RegionSet

logger = logging.getLogger(__name__)

RESULTS = "result"  # folder of the answers in that of a run
UNFINISHED = "unfinished"
# Row: region_id, and the prediction or the reason why there is none.
Row = Mapping[str, Any]

_NAME = re.compile(rf"(?P<split>.+)_(epoch(?P<epoch>.+)|{UNFINISHED}\.rank\d+)\.jsonl")


class AnswerLog:
    """The answers of one process, on disk after every batch.

    Args:
        folder: `result` of the run.
        split: name in the run.
        rank: of this process.
        region_set: the split.
    """

    def __init__(self, folder: Path, split: str, rank: int, region_set: RegionSet) -> None:
        self.path = folder / f"{split}_{UNFINISHED}.rank{rank}.jsonl"
        self._images = _images_of(region_set)
        self._tells = rank == 0

    def __enter__(self) -> AnswerLog:
        self._file = self.path.open("w", encoding="utf-8")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        if error is not None and self._tells:
            logger.warning(
                "the answers so far are in %s; `dynrefer grade %s` grades them",
                self.path.parent,
                self.path.parents[1],
            )

    def add(self, rows: Iterable[Row]) -> None:
        """Write the rows of a batch."""
        self._file.writelines(_line(row, self._images) for row in rows)
        self._file.flush()

    def remove(self) -> None:
        """Delete the file; its answers have been written elsewhere."""
        self.path.unlink(missing_ok=True)


def remove_unfinished(folder: Path, split: str) -> None:
    """Delete what an earlier run in the same folder left of a split, perhaps with more ranks."""
    for path in folder.glob("*.jsonl"):
        name = _NAME.fullmatch(path.name)
        if name and name["split"] == split and name["epoch"] is None:
            path.unlink()


def write_answers(path: Path, rows: Iterable[Row], region_set: RegionSet) -> None:
    """Write all answers of a split, by region id; the file appears when it is complete."""
    images = _images_of(region_set)
    with replacing(path) as file:
        ordered = sorted(rows, key=_region_id)
        file.writelines(_line(row, images) for row in ordered)


def write_result_json(path: Path, rows: Iterable[Row], region_set: RegionSet) -> None:
    """Write the predictions as LAVIS writes its results: an array of flat objects.

    COCO's caption tools read `image_id` and `caption`; `region_id` tells the regions of an image
    apart. Regions without an answer, and fields that were not asked for, are left out.
    """
    images = _images_of(region_set)
    answered = (row for row in sorted(rows, key=_region_id) if "prediction" in row)
    with replacing(path) as file:
        dump_list((_flat(row, images) for row in answered), file)


def _region_id(row: Row) -> int:
    return int(row["region_id"])


def _flat(row: Row, images: Mapping[int, int]) -> dict[str, Any]:
    region_id = row["region_id"]
    told = {
        name: value
        for name, value in row["prediction"].to_dict().items()
        if value not in (None, []) and (value or name != "probabilities")
    }
    return {"image_id": images.get(region_id), "region_id": region_id, **told}


@dataclass(frozen=True)
class AnswerFiles:
    """The answers of one evaluation.

    Args:
        split: name in the run.
        epoch: of the evaluation, as in the names of its files; `UNFINISHED` where it broke off.
        paths: one file; if it broke off, one of each process.
    """

    split: str
    epoch: str
    paths: Sequence[Path]

    def read(self) -> list[dict[str, Any]]:
        """The rows by region id, each region once.

        Raises:
            InputError: a line is damaged, other than the last one of an evaluation that broke off.
        """
        broken = self.epoch == UNFINISHED
        rows = [row for path in self.paths for row in _read(path, broken=broken)]
        by_region = {row["region_id"]: row for row in rows}
        return [by_region[region_id] for region_id in sorted(by_region)]


def find_answers(folder: Path) -> list[AnswerFiles]:
    """All answers in a run's folder `result`, by split and epoch."""
    found: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        name = _NAME.fullmatch(path.name)
        if name is not None:
            found.setdefault((name["split"], name["epoch"] or UNFINISHED), []).append(path)
    return [AnswerFiles(split, epoch, paths) for (split, epoch), paths in found.items()]


def _images_of(region_set: RegionSet) -> dict[int, int]:
    # Ground truth, and detections, which have answers too.
    regions = (*region_set.truth(), *region_set.regions)
    return {region.region_id: region.image_id for region in regions}


def _line(row: Row, images: Mapping[int, int]) -> str:
    line = {"image_id": images.get(row["region_id"]), **row}
    if "prediction" in row:
        line["prediction"] = row["prediction"].to_dict()
    return json.dumps(line, ensure_ascii=False) + "\n"


def _read(path: Path, *, broken: bool) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").split("\n")
    rows = []
    for number, line in enumerate(lines[:-1] if broken else lines, 1):  # the last may be cut off
        if not line:
            continue
        try:
            row = json.loads(line)
            del row["image_id"]
            if "prediction" in row:
                row["prediction"] = RegionPrediction.from_dict(row["prediction"])
            row["region_id"] = int(row["region_id"])
        except (ValueError, LookupError, TypeError) as error:
            raise InputError(f"{path}, line {number}: not an answer of a run ({error})") from error
        rows.append(row)
    return rows
