"""Plots of runs: one page from their folders, and each plot by itself, as for a notebook.

`read_runs` reads the folders, `report_page` draws them all. The plots are functions of their own:
each returns a `Plot`, which shows itself in a notebook and saves itself as .png, .pdf or .svg.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lavis_dynrefer.lazy_names import lazy_names

if TYPE_CHECKING:
    from lavis_dynrefer.report.answer_plots import (
        attribute_plot,
        calibration_plot,
        confusion_plot,
    )
    from lavis_dynrefer.report.caption_plots import caption_plot
    from lavis_dynrefer.report.plot_style import Plot
    from lavis_dynrefer.report.predicted_folder import is_predicted, read_predicted
    from lavis_dynrefer.report.reliability_plots import read_calibration, reliability_plot
    from lavis_dynrefer.report.run_answers import AnsweredSplit, read_answers, score_captions
    from lavis_dynrefer.report.run_comparison import comparison_plot, metric_plot
    from lavis_dynrefer.report.run_folder import RunFolder, labels_of, read_run, read_runs
    from lavis_dynrefer.report.runs_page import predicted_page, report_page
    from lavis_dynrefer.report.training_curves import training_plots, validation_plots

__all__ = [
    "AnsweredSplit",
    "Plot",
    "RunFolder",
    "attribute_plot",
    "calibration_plot",
    "caption_plot",
    "comparison_plot",
    "confusion_plot",
    "is_predicted",
    "labels_of",
    "metric_plot",
    "predicted_page",
    "read_answers",
    "read_calibration",
    "read_predicted",
    "read_run",
    "read_runs",
    "reliability_plot",
    "report_page",
    "score_captions",
    "training_plots",
    "validation_plots",
]

__getattr__ = lazy_names(
    __name__,
    {
        "answer_plots": ("attribute_plot", "calibration_plot", "confusion_plot"),
        "caption_plots": ("caption_plot",),
        "plot_style": ("Plot",),
        "runs_page": ("predicted_page", "report_page"),
        "predicted_folder": ("is_predicted", "read_predicted"),
        "reliability_plots": ("read_calibration", "reliability_plot"),
        "run_answers": ("AnsweredSplit", "read_answers", "score_captions"),
        "run_comparison": ("comparison_plot", "metric_plot"),
        "run_folder": ("RunFolder", "labels_of", "read_run", "read_runs"),
        "training_curves": ("training_plots", "validation_plots"),
    },
)
