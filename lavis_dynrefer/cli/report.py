"""Draw a run, or several side by side, into one html page.

dynrefer report output/20261129021915
dynrefer report output/base/20261129021915 output/low_rate/20261129022612 --names base "low rate"

Curves of the training, metrics by epoch, the precision of each attribute, which category is named
for which, captions with their scores; for several runs also their metrics and the settings that
differ. A run that is still going or broke off is drawn as far as it goes. Folders of `dynrefer
predict` are drawn, too: which names were given how often, captions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lavis_dynrefer.formats.json_stream import cannot_write, replace_bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer report`."""
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", type=Path, help="folder of a run, or of dynrefer predict"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("report.html"), help="the page; report.html by default"
    )
    parser.add_argument(
        "--names", nargs="+", default=[], help="of the runs; by default the parts of their paths"
    )
    parser.add_argument(
        "--options",
        nargs="+",
        default=[],
        help="settings that differ now: datasets.x.build_info.root=/data",
    )


def run(arguments: argparse.Namespace) -> int:
    """Draw the page; returns the exit code."""
    from lavis_dynrefer import report  # imports torch: slow

    try:  # before anything is drawn, which may take minutes
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(arguments.output, error) from error
    folders, names = arguments.runs, arguments.names
    missing = []
    if all(map(report.is_predicted, folders)):
        labels = report.labels_of(folders, names)
        page = report.predicted_page(dict(zip(labels, map(report.read_predicted, folders))))
    else:
        runs = report.read_runs(folders, names)
        page = report.report_page(runs, arguments.options)
        missing = [f"{one.label}: {text}" for one in runs for text in one.missing]
    replace_bytes(arguments.output, page.encode("utf-8", "replace"))
    for text in missing:
        print(text)
    print(f"report: {arguments.output}")
    return 0
