"""The page of `dynrefer report`: one html file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lavis_dynrefer.pages.html_page import number, page_template
from lavis_dynrefer.report.plot_style import SERIES, Plot
from lavis_dynrefer.report.report_parts import (
    Cards,
    Section,
    Table,
    predicted_sections,
    sections,
)
from lavis_dynrefer.report.run_answers import AnsweredSplit
from lavis_dynrefer.report.run_comparison import last_reports
from lavis_dynrefer.report.run_folder import RunFolder

# Lighter values of the same hues, for dark pages.
_DARK_SERIES = ("#56a9e8", "#ff8c42", "#35c79a", "#e3a1c4", "#f2bd4a", "#9bd3f7")


def report_page(runs: Sequence[RunFolder], options: Sequence[str] = ()) -> str:
    """Draw runs, several on the same axes.

    The page refers to nothing outside itself.

    Args:
        runs: of `read_runs`.
        options: settings that differ now, such as where the annotations are.

    Returns:
        The html.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    return _page(
        runs,
        {run.label: _facts(run) for run in runs},
        list(sections(runs, options)),
        _tiles(runs[0]) if len(runs) == 1 else [],
    )


def predicted_page(read: Mapping[str, AnsweredSplit]) -> str:
    """Draw the answers in folders of `dynrefer predict`: label -> answers."""
    facts = {
        label: [
            ("images", f"{len(one.region_set.images):,}"),
            ("regions", f"{len(one.predictions):,}"),
        ]
        for label, one in read.items()
    }
    return _page([_Predicted(label) for label in read], facts, list(predicted_sections(read)), [])


class _Predicted(NamedTuple):
    label: str
    missing: Sequence[str] = ()


def _page(
    shown: Sequence[RunFolder | _Predicted],
    facts: Mapping[str, Sequence[tuple[str, str]]],
    parts: Sequence[Section],
    tiles: Sequence[tuple[str, str]],
) -> str:
    return page_template("report.html").render(
        title=", ".join(one.label for one in shown),
        kind_of="run" if isinstance(shown[0], RunFolder) else "folder",
        runs=shown,
        facts=facts,
        tiles=tiles,
        sections=parts,
        kind=_kind,
        series=list(zip(SERIES, _DARK_SERIES)),
    )


def _facts(run: RunFolder) -> list[tuple[str, str]]:
    settings, model = run.settings, run.config.get("model") or {}
    facts = [
        ("folder", str(run.path)),
        ("model", f"{model.get('arch', '?')} {model.get('model_type', '')}".strip()),
        ("data", ", ".join(run.config["datasets"] or ())),
        ("seed", str(settings.get("seed", "?"))),
    ]
    if run.trains:
        done = len(run.epochs.get("train", ()))
        facts += [
            ("epochs", f"{done} of {settings.get('max_epoch', '?')}"),
            ("batch", f"{settings.get('batch_size_train', '?')} regions"),
            ("learning rate", str(settings.get("init_lr", "?"))),
        ]
    return facts


def _tiles(run: RunFolder) -> list[tuple[str, str]]:
    """The main number of each split and what it is."""
    return [
        (number(report["metrics"][report["primary"]]), f"{report['primary']}, percent · {split}")
        for split, report in last_reports(run).items()
    ]


def _kind(part: Plot | Table | Cards) -> str:
    return type(part).__name__
