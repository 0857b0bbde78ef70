"""Which scales view policies choose, drawn."""

from __future__ import annotations

from collections.abc import Mapping

from lavis_dynrefer.report.plot_style import SERIES, SOFT, Plot, new_figure, plot_settings, short


def scale_plot(chosen: Mapping[str, str]) -> Plot:
    """Histograms of the scale of the second view, a row for each policy.

    Args:
        chosen: "world: training, policy" -> "scale:percent% ..."; "scales" of `measure_policies`.
    """
    shares = {name: read_shares(text) for name, text in chosen.items()}
    scales = sorted({scale for row in shares.values() for scale in row})
    with plot_settings():
        figure, axes = new_figure(len(shares), 1, height=1.1, sharex=True, sharey=True)
        for ax, (name, row) in zip(axes, shares.items()):
            heights = [row.get(scale, 0.0) for scale in scales]
            bars = ax.bar(range(len(scales)), heights, color=SERIES[0])
            labels = [f"{height:.0f}" if height else "" for height in heights]
            ax.bar_label(bars, labels, color=SOFT, fontsize=8)
            ax.set_title(short(name, 80))
            ax.set(ylim=(0, 119), yticks=(0, 50, 100))
            ax.grid(axis="x", visible=False)
        axes[-1].set_xticks(range(len(scales)), [f"{scale:g}" for scale in scales])
        axes[-1].set_xlabel("scale of the second view")
        figure.supylabel("percent of the regions", color=SOFT, fontsize=10)
    favourites = "; ".join(
        f"{name}: {max(row, key=row.__getitem__):g}" for name, row in shares.items()
    )
    return Plot(
        "Which scales are chosen?",
        f"Histograms of scales. Most often chosen: {favourites}.",
        figure,
        ("policy", *(f"{scale:g}" for scale in scales)),
        [(name, *(f"{row.get(scale, 0):g}" for scale in scales)) for name, row in shares.items()],
    )


def read_shares(text: str) -> dict[float, float]:
    """Scale -> percent of the regions.

    >>> read_shares("0.4:16% 1:84%")
    {0.4: 16.0, 1.0: 84.0}
    """
    pairs = (one.rstrip("%").split(":") for one in text.split())
    return {float(scale): float(percent) for scale, percent in pairs}
