"""The page of `dynrefer report`: one html file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from lavis_dynrefer.pages.html_page import number, page_template
from lavis_dynrefer.report.plot_style import SERIES, Plot
from lavis_dynrefer.report.report_parts import Cards, Table, sections
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
    return page_template("report.html").render(
        title=", ".join(run.label for run in runs),
        runs=runs,
        facts={run.label: _facts(run) for run in runs},
        tiles=_tiles(runs[0]) if len(runs) == 1 else [],
        sections=list(sections(runs, options)),
        kind=_kind,
        series=list(zip(SERIES, _DARK_SERIES)),
    )


def _facts(run: RunFolder) -> list[tuple[str, str]]:
    settings, model = run.settings, run.config.get("model", {})
    facts = [
        ("folder", str(run.path)),
        ("model", f"{model.get('arch', '?')} {model.get('model_type', '')}".strip()),
        ("data", ", ".join(run.config.get("datasets", {}))),
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
