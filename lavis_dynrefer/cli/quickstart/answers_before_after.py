"""The answers of two runs about the same regions, and what they should be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis_dynrefer.structures import RegionPrediction, RegionRecord, RegionSet

Report = Mapping[str, Any]  # as a run writes it


@dataclass(frozen=True)
class SplitAnswers:
    """One split of both runs.

    Args:
        name: in the run.
        region_set: its regions.
        reports: of the two runs.
        answers: of the two runs, region id -> prediction.
    """

    name: str
    region_set: RegionSet
    reports: tuple[Report, Report]
    answers: tuple[Mapping[int, RegionPrediction], Mapping[int, RegionPrediction]]

    @property
    def evaluator(self) -> str:
        """What graded it."""
        return str(self.reports[0]["evaluator"])

    def captioned(self) -> list[RegionRecord]:
        """Regions with a reference caption, in file order."""
        return [region for region in self.region_set.regions if region.caption]

    def captions(self, run: int, regions: Sequence[RegionRecord]) -> list[str]:
        """What a run, 0 or 1, said about regions; nothing where an answer is missing."""
        found = (self.answers[run].get(region.region_id) for region in regions)
        return [(one.caption or "") if one else "" for one in found]


def read_answers(
    region_sets: Mapping[str, RegionSet], before: Path, after: Path
) -> list[SplitAnswers]:
    """The splits that both runs have graded, in the order of `region_sets`.

    Args:
        region_sets: name of a split in the run -> its regions.
        before: folder of a run.
        after: folder of a run.
    """
    first, last = _reports(before), _reports(after)
    return [
        SplitAnswers(
            name,
            region_set,
            (first[name], last[name]),
            (_answers(first[name]), _answers(last[name])),
        )
        for name, region_set in region_sets.items()
        if name in first and name in last
    ]


def read_region_sets(run_file: str, options: Sequence[str]) -> dict[str, RegionSet]:
    """The splits that a run evaluates, in that order, read again with the same settings."""
    from lavis_dynrefer.training.known_names import dataset_class
    from lavis_dynrefer.training.run_config import load_run_config

    config = load_run_config(run_file, options, evaluate=True)
    found: dict[str, RegionSet] = {}
    for dataset, section in config.datasets_cfg.items():
        names = section.build_info.get("split_names") or {}
        parts = dataset_class(dataset)(section).read_splits()
        found.update({names.get(split, split): part for split, part in parts.items()})
    return {name: found[name] for name in config.run_cfg.test_splits if name in found}


def _reports(run_folder: Path) -> dict[str, Report]:
    documents = [
        json.loads(path.read_text(encoding="utf-8")) for path in run_folder.glob("report_*.json")
    ]
    return {document["split"]: document for document in documents}


def _answers(report: Report) -> dict[int, RegionPrediction]:
    rows = map(json.loads, Path(report["predictions"]).read_text(encoding="utf-8").splitlines())
    return {
        row["region_id"]: RegionPrediction.from_dict(row["prediction"])
        for row in rows
        if "prediction" in row
    }
