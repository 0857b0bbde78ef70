"""Reliability diagrams of a calibrated checkpoint, before and after."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.report.plot_style import SERIES, SOFT, Plot, new_figure, plot_settings
from lavis_dynrefer.training.calibrating.calibration_run import CALIBRATION_FILE

_TIMES = ("before", "after")
_FEW = 10  # answers; a bin with fewer says little


def read_calibration(folder: Path) -> dict[str, Any] | None:
    """What `dynrefer calibrate` has measured and written beside a checkpoint; None if it has not.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / CALIBRATION_FILE
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for one in found["kinds"].values():
            for time in _TIMES:
                float(one[time]["error"])
                [
                    (float(given), float(share), int(count))
                    for given, share, count in _curve(one, time)
                ]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged; dynrefer calibrate writes it again") from error
    return found


def reliability_plot(calibration: Mapping[str, Any], *, title: str = "") -> Plot:
    """Share of right answers by probability, a panel for each kind of answer.

    Args:
        calibration: of `read_calibration`, with at least one kind.
        title: by default "Are the probabilities right?".
    """
    kinds = calibration["kinds"]
    with plot_settings():
        figure, axes = new_figure(1, len(kinds), height=3.3)
        for ax, (kind, one) in zip(axes, kinds.items()):
            ax.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle="--")
            for colour, marker, time in zip((SERIES[1], SERIES[0]), "so", _TIMES):
                many = [point for point in _curve(one, time) if point[2] >= _FEW]
                few = [point for point in _curve(one, time) if point[2] < _FEW]
                look = {"color": colour, "marker": marker, "markersize": 4}
                label = f"{time}, error {100 * one[time]['error']:.1f} %"
                ax.plot([p[0] for p in many], [p[1] for p in many], **look, label=label)
                ax.plot([p[0] for p in few], [p[1] for p in few], **look, ls="none", alpha=0.3)
            ax.set(title=kind, xlabel="probability", xlim=(0, 1), ylim=(-0.03, 1.03))
            ax.legend(labelcolor=SOFT, loc="lower right", fontsize=8)
        axes[0].set_ylabel("share that is right")
    errors = "; ".join(
        f"{kind} {100 * one['before']['error']:.1f} before and {100 * one['after']['error']:.1f} "
        "after"
        for kind, one in kinds.items()
    )
    rows = [
        (kind, time, f"{given:.3f}", f"{share:.3f}", f"{count:,}")
        for kind, one in kinds.items()
        for time in _TIMES
        for given, share, count in _curve(one, time)
    ]
    known = calibration.get("familiarity")
    familiar = (
        f" Familiarity was fitted on {known['training_regions']:,} training regions."
        if known
        else ""
    )
    return Plot(
        title or "Are the probabilities right?",
        f"Reliability diagrams. Expected calibration error in percent: {errors}.",
        figure,
        ("kind", "calibration", "mean probability", "share that is right", "answers"),
        rows,
        "On the dashed line, of the answers with a probability of 70 % seven in ten are right. "
        "Bins of fewer than ten answers are faint. Half of the images of a split were fitted, the "
        f"other half are drawn; of categories the best name counts.{familiar}",
    )


def _curve(one: Mapping[str, Any], time: str) -> list[list[float]]:
    found: list[list[float]] = one[time]["curve"]
    return found
