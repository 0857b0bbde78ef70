"""What the folder of a run holds, read as far as it goes: half-written and running ones too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lavis_dynrefer.errors import DynReferError, InputError, MissingFileError
from lavis_dynrefer.training.answers.answer_files import (
    RESULTS,
    UNFINISHED,
    AnswerFiles,
    find_answers,
)
from lavis_dynrefer.training.answers.run_log import LOG, logged_config, logged_epochs, read_log
from lavis_dynrefer.training.scalars.scalar_file import SCALARS, ScalarRow, read_scalars

TRAIN = "train"
_EXPECTED = (
    f"expected the folder of a run of the task dynrefer, with a {LOG} and a folder {RESULTS}"
)


@dataclass
class RunFolder:
    """A run as its folder shows it.

    Args:
        path: the folder.
        label: short name, different from those of the other runs of a report.
        config: all sections.
        epochs: split -> rows of the log: "epoch" and numbers by name.
        steps: numbers by step, in order.
        reports: split -> its reports, oldest first, as the run wrote them.
        answers: split -> its newest answers.
        missing: what is not there or damaged, a sentence each.
    """

    path: Path
    label: str
    config: Mapping[str, Any]
    epochs: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    steps: Sequence[ScalarRow] = ()
    reports: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    answers: Mapping[str, AnswerFiles] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The section `run`."""
        found: Mapping[str, Any] = self.config["run"]
        return found

    @property
    def trains(self) -> bool:
        """Whether it is a training."""
        return not self.settings.get("evaluate")

    def evaluations(self, split: str) -> list[Mapping[str, Any]]:
        """Rows of the evaluations after each epoch, which have a number; not the one at the end."""
        return [row for row in self.epochs.get(split, ()) if isinstance(row["epoch"], int)]


def read_run(folder: str | Path, *, label: str = "") -> RunFolder:
    """Read a run; what is damaged or not there yet is named in `missing`.

    Args:
        folder: the one that holds `log.txt`.
        label: by default the name of the folder.

    Raises:
        MissingFileError: there is no such folder.
        InputError: it is not the folder of a run.
    """
    path = Path(folder)
    if not path.is_dir():
        raise MissingFileError(f"{path}: no such folder; {_EXPECTED}")
    if not (path / LOG).is_file():
        runs = sorted(log.parent for log in path.glob(f"*/{LOG}"))
        inside = f"; it holds {len(runs)}, such as {runs[-1]}" if runs else ""
        raise InputError(f"{path}: {_EXPECTED}{inside}")
    text = read_log(path)
    try:
        config = logged_config(text, where=path)
    except InputError as error:
        raise InputError(f"{error}; {_EXPECTED}") from error
    run = RunFolder(path, label or path.resolve().name, config, epochs=logged_epochs(text))
    run.steps, damaged = read_scalars(path)
    if damaged:
        run.missing.append(f"{SCALARS}: {damaged} damaged lines are left out.")
    run.reports = _read_reports(run)
    run.answers = _newest_answers(run)
    _note_what_is_missing(run)
    return run


def read_runs(folders: Sequence[str | Path], labels: Sequence[str] = ()) -> list[RunFolder]:
    """Read several runs, each under a label of its own.

    Args:
        folders: see `read_run`.
        labels: one each; by default the parts in which their paths differ.

    Raises:
        InputError: see `read_run`; or two folders are the same, or labels do not fit.
    """
    return [
        read_run(folder, label=label) for folder, label in zip(folders, labels_of(folders, labels))
    ]


def labels_of(folders: Sequence[str | Path], labels: Sequence[str] = ()) -> Sequence[str]:
    """A label for each folder; arguments and errors as of `read_runs`."""
    paths = [Path(folder).resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise InputError("a folder is named twice; name different ones")
    if labels and (len(labels) != len(paths) or len(set(labels)) < len(labels)):
        raise InputError(f"expected {len(paths)} different names, one for each run, got {labels}")
    return labels or differing_parts(paths)


def differing_parts(paths: Sequence[Path]) -> list[str]:
    """The shortest labels by which paths differ; names of runs are times, so that folders say more.

    >>> differing_parts([Path("out/base/20261129"), Path("out/low/20261130")])
    ['base', 'low']
    >>> differing_parts([Path("out/1"), Path("out/2")])
    ['1', '2']
    """
    if len(paths) == 1:
        return [paths[0].name]
    longest = max(len(path.parts) for path in paths)
    rows = [("",) * (longest - len(path.parts)) + path.parts for path in paths]
    columns = [column for column in zip(*rows) if len(set(column)) > 1]
    for count in range(1, len(columns) + 1):
        labels = ["/".join(filter(None, parts)) for parts in zip(*columns[:count])]
        if len(set(labels)) == len(labels) and all(labels):
            return labels
    return [str(path) for path in paths]


def _read_reports(run: RunFolder) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    ranked = []
    for path in sorted(run.path.glob("report_*.json")):
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            report = {key: report[key] for key in _OF_A_REPORT}
            report["metrics"] = {name: float(one) for name, one in report["metrics"].items()}
            report["counts"] = {name: int(count) for name, count in report["counts"].items()}
            if report["primary"] not in report["metrics"]:
                raise InputError("the main metric is missing")
            ranked.append((_age(report["epoch"], [path]), report))
        except (DynReferError, ValueError, LookupError, TypeError, AttributeError):
            run.missing.append(
                f"{path.name} is damaged; dynrefer grade {run.path} --split SPLIT writes it again."
            )
    for _, report in sorted(ranked, key=lambda pair: pair[0]):
        found.setdefault(str(report["split"]), []).append(report)
    return found


_OF_A_REPORT = ("split", "epoch", "evaluator", "protocol", "mode", "primary", "metrics", "counts")


def _age(epoch: Any, paths: Sequence[Path]) -> tuple[int, float]:
    """What grows with the time of an evaluation, also after its files were copied or graded again.

    Evaluations by epoch; then those after the training, by the time of their files; the one under
    way is before all others.
    """
    if epoch == UNFINISHED:
        return 0, 0.0
    if str(epoch).isdecimal():
        return 1, float(epoch)
    return 2, max(path.stat().st_mtime for path in paths)


def _newest_answers(run: RunFolder) -> dict[str, AnswerFiles]:
    """The newest finished answers of each split; those under way only where there are no others."""
    newest: dict[str, AnswerFiles] = {}
    found = find_answers(run.path / RESULTS)
    for answers in sorted(found, key=lambda one: _age(one.epoch, one.paths)):
        newest[answers.split] = answers
    return newest


def _note_what_is_missing(run: RunFolder) -> None:
    """Compare what is there with what the configuration asks for."""
    settings, missing = run.settings, run.missing
    if run.trains:
        done, wanted = len(run.epochs.get(TRAIN, ())), int(settings.get("max_epoch") or 0)
        if done < wanted:
            missing.append(
                f"{done} of {wanted} epochs are finished: the run is still going, or broke off; "
                f"run.resume_ckpt_path=auto continues it."
            )
        if not run.steps:
            missing.append(f"No {SCALARS}: the curves have a point for each epoch, none by step.")
    for split in (*(settings.get("valid_splits") or ()), *(settings.get("test_splits") or ())):
        if split not in run.reports:
            broken = split in run.answers
            missing.append(
                f"Split {split} has "
                + (
                    f"answers but no report; dynrefer grade {run.path} writes it."
                    if broken
                    else "no answers yet."
                )
            )
    for split, answers in run.answers.items():
        if answers.epoch == UNFINISHED:
            missing.append(f"The answers to split {split} are incomplete; those made are drawn.")
