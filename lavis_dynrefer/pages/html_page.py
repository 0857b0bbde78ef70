"""Templates, their filters, and images as data URLs; nothing else makes html.

A page is a template in `templates/`. Whole pages extend `page.html`, which brings the head, the
colours and a content security policy that allows nothing but the page's own script.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from PIL import Image

from lavis_dynrefer.errors import shorten
from lavis_dynrefer.structures import NamedScore, ScoredName

if TYPE_CHECKING:
    from jinja2 import Environment, Template

IMAGE_SIDE = 1280  # pixels
IMAGE_BYTES = 400_000
_QUALITIES = (92, 82, 70, 50)  # of JPEG
_MAX_TEXT = 300  # characters
_MIN_SPREAD = {"attributes": 0.1, "categories": 0.4}  # from the lowest score to a full bar


def page_template(name: str) -> Template:
    """Get a template of this package by file name; all values are escaped.

    `.render(...)` makes a page; `.module.part(...)` calls one macro of a template of parts.
    """
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from lavis_dynrefer import __version__

    environment = Environment(
        loader=PackageLoader("lavis_dynrefer.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shared = (plain, attribute, number, thousands, times, bar, bars, likely, data_url, script_hash)
    environment.filters.update({function.__name__: function for function in shared})
    environment.globals["version"] = __version__
    return environment


def data_url(image: Image.Image, *, side: int = IMAGE_SIDE, max_bytes: int = IMAGE_BYTES) -> str:
    """Encode an image as a data URL: a JPEG of bounded size.

    Args:
        image: RGB; left unchanged.
        side: the longest side in pixels; larger images are scaled down.
        max_bytes: size of the JPEG; base64 makes the text a third longer.
    """
    if max(image.size) > side:
        image = image.copy()
        image.thumbnail((side, side))
    for quality in _QUALITIES:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality, subsampling=0 if quality > 90 else 2)
        if stream.tell() <= max_bytes:
            return f"data:image/jpeg;base64,{_base64(stream.getvalue())}"
    return data_url(image, side=max(image.size) // 2, max_bytes=max_bytes)


def script_hash(script: str) -> str:
    """The source of a script as a content security policy names it."""
    return f"sha256-{_base64(hashlib.sha256(script.encode()).digest())}"


def plain(text: str) -> str:
    """Valid UTF-8 text, cut to 300 characters."""
    return shorten(text, _MAX_TEXT)


def attribute(name: str) -> tuple[str, str]:
    """Type and first synonym of an attribute.

    >>> attribute("color:red/crimson"), attribute("wet")
    (('color', 'red'), ('', 'wet'))
    """
    kind, _, words = plain(name).rpartition(":")
    return kind, words.split("/")[0]


def number(value: float, *, sign: bool = False) -> str:
    """Two digits after the point, with a true minus sign.

    >>> number(-0.5), number(0.256, sign=True), number(-0.001, sign=True)
    ('\u22120.50', '+0.26', '0.00')
    """
    text = f"{value:+.2f}" if sign else f"{value:.2f}"
    if float(text) == 0:
        text = "0.00"
    return text.replace("-", "\u2212")


def thousands(value: int) -> str:
    """A whole number with commas.

    >>> thousands(1234567)
    '1,234,567'
    """
    return f"{value:,}"


def times(gain: float) -> str:
    """How many times as likely a gain in nats makes each token.

    >>> times(0.69), times(-0.69), times(6.6)
    ('2.0', '0.5', '735')
    """
    factor = math.exp(min(gain, 20.0))
    if factor >= 10:
        return f"{factor:,.0f}"
    return f"{factor:.1f}" if factor >= 1 else f"{factor:.2g}"


def bar(value: float, axis: float) -> float:
    """Length of a bar that ends at `axis`, -1 to 1; 0 if the value is not finite."""
    return round(min(max(value / axis, -1.0), 1.0), 4) if math.isfinite(value) else 0.0


def bars(scores: Sequence[NamedScore], task: str, count: int) -> list[tuple[str, float, float]]:
    """The best names of a list, their probabilities, and the lengths of their bars, 0 to 1.

    Answers of earlier versions have scores only. They say which name fits best, not how well: their
    bars start at the lowest score.

    Args:
        scores: of one region, best first.
        task: "attributes" or "categories".
        count: how many names.
    """
    if not scores:
        return []
    shown = [one for one in scores[:count] if isinstance(one, ScoredName)]
    if len(shown) == len(scores[:count]) and all(one.probability is not None for one in shown):
        return [(one.name, likely(one), bar(likely(one), 1.0)) for one in shown]
    best, lowest = scores[0][1], scores[-1][1]
    spread = max(best - lowest, _MIN_SPREAD[task])
    return [(name, value, bar(spread - best + value, spread)) for name, value in scores[:count]]


def likely(entry: ScoredName) -> float:
    """Probability of a name; of answers of earlier versions the score."""
    return entry.score if entry.probability is None else entry.probability


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
