"""Figures that are legible in light and dark, with the numbers they show.

Colours are named by their light value. On a page each becomes a CSS variable, with another value
in the dark; elsewhere, as in a notebook, the light one stays.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lavis_dynrefer.errors import MissingPackageError, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, LINE = "#1b1f27", "#5d6675", "#e2e5ea"  # text, less important text, grids
ON_SERIES = "#ffffff"  # text on a colour of `SERIES`
# Of Okabe and Ito, who chose them for colour-blind readers; in an order of falling contrast.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P")
VARIABLES = {
    INK: "--ink",
    SOFT: "--soft",
    LINE: "--line",
    ON_SERIES: "--on-series",
    **{colour: f"--series{number}" for number, colour in enumerate(SERIES)},
}
WIDTH = 11.0  # inches, of a figure as wide as the page
_DPI = 110  # of PNG
_CSS_PER_INCH = 103  # pixels: `WIDTH` fills a page
_SETTINGS = {
    "axes.axisbelow": True,
    "axes.edgecolor": LINE,
    "axes.grid": True,
    "axes.labelcolor": SOFT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so that sizes are right
    "font.size": 10,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",  # text stays text: it can be searched, and read aloud
    "svg.hashsalt": "dynrefer",
    "text.color": INK,
    "text.parse_math": False,  # names may hold dollars
    "xtick.color": SOFT,
    "ytick.color": SOFT,
}


@dataclass(frozen=True)
class Plot:
    """A figure with what it says in words and in numbers.

    In a notebook it shows itself.

    Args:
        title: what it shows.
        alt: what is seen in it, for those who do not see it.
        figure: of matplotlib.
        heads: of the table.
        rows: the numbers that are drawn.
        note: how to read it.
    """

    title: str
    alt: str
    figure: Figure
    heads: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""

    def svg(self) -> str:
        """An svg element for a page; see `VARIABLES` for its colours."""
        stream = io.StringIO()
        with plot_settings():
            self.figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None})
        text = stream.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
        text = re.sub(r"<style[^>]*>.*?</style>", "", text, count=1, flags=re.DOTALL)
        text = re.sub(
            r' id="(?:figure|axes|patch|text|line2d|matplotlib|PathC|Quad|legend)[^"]*"', "", text
        )
        text = re.sub(r' id="[a-z]*tick_\d+"', "", text)
        head, rest = text.split(">", 1)
        points = float(re.findall(r'viewBox="\S+ \S+ (\S+) ', head)[0])
        head = re.sub(r' (width|height|version|xmlns(:xlink)?)="[^"]*"', "", head)
        head += f' style="width: {points / 72 * _CSS_PER_INCH:.0f}px"'
        for colour, variable in VARIABLES.items():
            rest = rest.replace(colour, f"var({variable})")
        return f'{head} role="img" aria-label="{_attribute(self.alt)}">{rest}'

    def save(self, path: Any, **options: Any) -> None:
        """Write the figure on white; the name of a file tells how: .png, .pdf or .svg."""
        with plot_settings():
            self.figure.savefig(path, dpi=_DPI, bbox_inches="tight", facecolor="white", **options)

    def _ipython_display_(self) -> None:
        from IPython.display import Image, Markdown, display

        stream = io.BytesIO()
        self.save(stream, format="png")
        display(Markdown(f"**{self.title}**"))
        display(Image(stream.getvalue(), alt=self.alt))
        if self.note:
            display(Markdown(self.note))


@contextmanager
def plot_settings() -> Iterator[None]:
    """While entered, matplotlib draws in the style of these pages.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingPackageError(
            "plots need matplotlib; pip install 'lavis_dynrefer[report]'"
        ) from error
    with matplotlib.rc_context(_SETTINGS):
        yield


def new_figure(
    rows: int = 1, columns: int = 1, *, height: float = 2.6, width: float = WIDTH, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure without pyplot's windows, and its axes row by row; call it in `plot_settings`.

    Args:
        rows: of axes.
        columns: of axes.
        height: of a row in inches.
        width: of the figure in inches.
        **options: of `Figure.subplots`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height * rows), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1, w_pad=0.08)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def series(number: int) -> dict[str, Any]:
    """Colour and marker of a run or group; they repeat together with another line style."""
    style = ("-", "--", ":")[number // len(SERIES) % 3]
    place = number % len(SERIES)
    return {"color": SERIES[place], "marker": MARKERS[place], "linestyle": style}


def short(text: str, length: int = 28) -> str:
    """A name as a label: one line, not too long."""
    return shorten(text, length, printable=True)


def _attribute(text: str) -> str:
    from html import escape

    return escape(text, quote=True)
