"""Grading the answers of a split: in the run that gave them, or later from its folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis import tasks
from omegaconf import OmegaConf

from lavis_dynrefer.errors import InputError, choice_problem
from lavis_dynrefer.formats.json_stream import replace_bytes
from lavis_dynrefer.metrics import EVALUATORS, render_table
from lavis_dynrefer.structures import MetricReport
from lavis_dynrefer.training.answers.answer_files import RESULTS, AnswerFiles, Row, find_answers
from lavis_dynrefer.training.answers.run_log import logged_config, read_log
from lavis_dynrefer.training.run_config import RunConfig, read_options

logger = logging.getLogger(__name__)


def grade_rows(
    dataset: Any,
    rows: Sequence[Row],
    *,
    split: str,
    epoch: Any,
    written: Sequence[Path],
    mode: str,
) -> MetricReport:
    """Grade answers, and write the report as json and as a table into the folder of the run.

    Args:
        dataset: a `RegionDataset`.
        rows: answers and failures; regions may be missing.
        split: name in the run.
        epoch: after which the model answered.
        written: files of these answers, in `RESULTS`.
        mode: `run.protocol_mode`.
    """
    report = EVALUATORS[dataset.evaluator](
        dataset.region_set,
        {row["region_id"]: row["prediction"] for row in rows if "prediction" in row},
        mode=mode,
    )
    details = {
        "split": split,
        "epoch": epoch,
        "dataset": dataset.name,
        "rejected_at_load": dataset.region_set.rejection_counts(),
        "failed": [row for row in rows if "prediction" not in row],
        "predictions": ", ".join(map(str, written)),
    }
    table, stem = render_table([report]), _report_stem(written[0], split, epoch)
    document = json.dumps({**report.to_dict(), **details}, indent=2)
    replace_bytes(Path(f"{stem}.txt"), table.encode())
    replace_bytes(Path(f"{stem}.json"), document.encode())  # last: it says that all is graded
    logger.info("%s, epoch %s\n%s", split, epoch, table)
    return report


@dataclass(frozen=True)
class GradedAnswers:
    """What grading a split later gave.

    Args:
        answers: what was graded.
        report: the numbers.
        stem: path of the report's files, without suffix.
        regions: number of regions that should have an answer.
        missing: number of those that have none.
    """

    answers: AnswerFiles
    report: MetricReport
    stem: Path
    regions: int
    missing: int

    @property
    def table(self) -> str:
        """The numbers as text."""
        return render_table([self.report])


def grade_run(
    folder: Path, *, split: str | None = None, options: Sequence[str] = ()
) -> Iterator[GradedAnswers]:
    """Grade the answers of a finished or broken run, with its own configuration and data.

    Args:
        folder: of the run: the one that holds `log.txt`.
        split: grade all answers of this split; by default all answers without a report.
        options: settings that differ now, as in `launch`: "datasets.x.build_info.root=/data".

    Raises:
        InputError: no run of the dynrefer task, no answers, or answers to other regions.
    """
    config = run_configuration(folder, options)
    found = find_answers(folder / RESULTS)
    if not found:
        raise InputError(f"{folder / RESULTS} holds no answers")
    if split is None:
        chosen = [one for one in found if not _has_report(one)]
        if not chosen:
            names = sorted({one.split for one in found})
            raise InputError(f"{folder}: all answers have a report; name a split of {names}")
    else:
        problem = choice_problem("split", split, {one.split for one in found})
        if problem is not None:
            raise InputError(problem)
        chosen = [one for one in found if one.split == split]
    config.run_cfg.evaluate = True
    datasets = tasks.setup_task(config).build_datasets(config)
    for one in chosen:
        yield _grade(one, datasets, mode=config.run_cfg.get("protocol_mode", "strict"))


def _grade(
    answers: AnswerFiles, datasets: Mapping[str, Mapping[str, Any]], *, mode: str
) -> GradedAnswers:
    holders = [splits[answers.split] for splits in datasets.values() if answers.split in splits]
    if not holders:
        raise InputError(f"{answers.paths[0]}: no dataset of the run has a split {answers.split!r}")
    dataset, rows = holders[0], answers.read()
    epoch = int(answers.epoch) if answers.epoch.isdecimal() else answers.epoch
    report = grade_rows(
        dataset, rows, split=answers.split, epoch=epoch, written=answers.paths, mode=mode
    )
    asked = {region.region_id for region in dataset.region_set.regions}
    answered = {row["region_id"] for row in rows if "prediction" in row}
    stem = _report_stem(answers.paths[0], answers.split, epoch)
    return GradedAnswers(answers, report, stem, len(asked), len(asked - answered))


def _has_report(answers: AnswerFiles) -> bool:
    stem = _report_stem(answers.paths[0], answers.split, answers.epoch)
    return Path(f"{stem}.json").is_file()


def _report_stem(answers: Path, split: str, epoch: Any) -> Path:
    return answers.parents[1] / f"report_{split}_epoch{epoch}"


def run_configuration(folder: Path, options: Sequence[str] = ()) -> RunConfig:
    """The configuration that a run has logged.

    Args:
        folder: of the run.
        options: settings that differ now.

    Raises:
        InputError: it is no run of the dynrefer task.
    """
    content = logged_config(read_log(folder), where=folder)
    return RunConfig(OmegaConf.merge(OmegaConf.create(content), read_options(options)))
