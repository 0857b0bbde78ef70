"""What the folder of a run holds, read as far as it goes: half-written and running ones too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lavis_dynrefer.errors import InputError, MissingFileError
from lavis_dynrefer.training.answers.answer_files import UNFINISHED, AnswerFiles, find_answers
from lavis_dynrefer.training.answers.run_log import LOG, logged_config, logged_epochs, read_log
from lavis_dynrefer.training.scalars.scalar_file import SCALARS, ScalarRow, read_scalars

RESULTS = "result"
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
    for path in sorted(run.path.glob("report_*.json"), key=lambda path: path.stat().st_mtime):
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            found.setdefault(report["split"], []).append(
                {key: report[key] for key in ("split", "epoch", "dataset", *_OF_A_REPORT)}
            )
        except (ValueError, LookupError, TypeError):
            run.missing.append(
                f"{path.name} is damaged; dynrefer grade {run.path} --split SPLIT writes it again."
            )
    return found


_OF_A_REPORT = ("evaluator", "protocol", "mode", "primary", "metrics", "counts")


def _newest_answers(run: RunFolder) -> dict[str, AnswerFiles]:
    """The newest finished answers of each split; those under way only where there are no others."""
    newest: dict[str, AnswerFiles] = {}
    ranks: dict[str, tuple[bool, float]] = {}
    for answers in find_answers(run.path / RESULTS):
        times = [path.stat().st_mtime for path in answers.paths]
        rank = (answers.epoch != UNFINISHED, max(times))
        if rank > ranks.get(answers.split, (False, -1.0)):
            newest[answers.split], ranks[answers.split] = answers, rank
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
    for split in (*settings.get("valid_splits", ()), *settings.get("test_splits", ())):
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
