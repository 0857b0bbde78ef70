"""The page that shows why regions were answered as they were: one html file, nothing beside it."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup
from PIL import Image

from lavis_dynrefer import __version__
from lavis_dynrefer.explain.explanation import SCORED, RegionExplanation, ViewExplanation
from lavis_dynrefer.images import open_image
from lavis_dynrefer.images.opening import ImageInput
from lavis_dynrefer.models.answering import TASKS
from lavis_dynrefer.pages.region_drawing import visible_box
from lavis_dynrefer.structures import Box, NamedScore, RegionPrediction

TEMPLATE = Path(__file__).parents[1] / "pages" / "templates" / "explain.html"
MOST_REGIONS = 100  # on one page
# Smaller changes say nothing: on drawn scenes, bfloat16 in place of float32 alone moved 95 of 100
# by up to 0.034 nats per token, 0.0016 of an attribute's score and 0.0056 of a category's logit.
NOISE = {"caption": 0.05, "attributes": 0.005, "categories": 0.02}
_LEAST_AXIS = {"caption": 0.5, "attributes": 0.05, "categories": 0.2}  # where bars end, at least
_LEAST_SPREAD = {"attributes": 0.1, "categories": 0.4}  # of a list's scores, from bar to no bar
_BEST = 5  # names of each kind
_MEASURED = (  # task, title and unit of its numbers
    ("caption", "Caption", "nats/token"),
    ("attributes", "Attributes", "score"),
    ("categories", "Categories", "logit"),
)
_MOST_TAGS = 10
_MOST_CHANGES = 3  # names of each kind and view
_LONGEST = 300  # characters of a text
_IMAGE_SIDE = 1280  # pixels
_IMAGE_BYTES = 400_000
_CROPS_BYTES = 1_200_000  # of all together
_LEAST_CROP_BYTES = 3_000
_QUALITIES = (92, 82, 70, 50)  # of JPEG
_COARSE = 128  # pixels; the dots of smaller crops are shown as such
_BADGE = 0.045  # height of a region's number, of the image's longer side
# The region one reads about stands out in the image, and so does the frame one points at.
_SCRIPT = """
const links = document.querySelectorAll("[data-region]"), frame = document.getElementById("frame");
const reading = new IntersectionObserver(entries => entries.forEach(({isIntersecting, target}) => {
  if (isIntersecting) links.forEach(link =>
    link.classList.toggle("current", link.dataset.region === target.id));
}), {rootMargin: "-30% 0px -65%"});
document.querySelectorAll(".region").forEach(region => reading.observe(region));
document.addEventListener("pointerover", ({target}) => {
  const view = target.closest("[data-frame]"), near = target.closest("[data-region]");
  frame.setAttribute("d", view ? view.dataset.frame : "");
  links.forEach(link =>
    link.classList.toggle("near", near !== null && link.dataset.region === near.dataset.region));
});
"""


@dataclass(frozen=True)
class ViewPart:
    """A view as shown.

    Args:
        view: the facts.
        crop: url of what the model saw.
        changes: task -> what is worth showing of what the view contributes.
        alone: tasks that see nothing else, so that nothing can take the view's place.
        instead: the best category without the view, where it is another one.
    """

    view: ViewExplanation
    crop: str
    changes: Mapping[str, Sequence[NamedScore]]
    alone: frozenset[str]
    instead: str | None


@dataclass(frozen=True)
class RegionPart:
    """A region as shown.

    Args:
        number: from 1.
        prediction: the answers.
        box: the part of its box that can be drawn, in pixels of the image; None for none.
        badge: where its number is drawn.
        views: smallest scale first.
    """

    number: int
    prediction: RegionPrediction
    box: Box | None
    badge: Box | None
    views: tuple[ViewPart, ...]

    @property
    def title(self) -> str:
        """Its caption, or what comes nearest to one."""
        if self.prediction.caption is None:
            best = self.prediction.categories or self.prediction.tags or [("", 0.0)]
            return plain(best[0][0]) or f"Region {self.number}"
        return plain(self.prediction.caption.strip()) or "(empty caption)"

    @property
    def area(self) -> float:
        """Of the part that can be drawn, in pixels."""
        return 0.0 if self.box is None else _overlap(self.box, self.box)


def explanation_page(
    image: ImageInput,
    explanations: Sequence[RegionExplanation],
    *,
    name: str = "",
    left_out: int = 0,
) -> str:
    """What was said about regions of an image and what each view contributed, as html.

    The page refers to nothing outside itself. 20 regions make at most about 3 MB.

    Args:
        image: the image that was explained.
        explanations: as `explain` gives them; the first `MOST_REGIONS` are shown.
        name: of the image; if empty, its file name where it is a path.
        left_out: regions of the image that were not explained, for the page to say so.

    Raises:
        ValueError, FileNotFoundError: an image that cannot be read.
    """
    if not name and isinstance(image, (str, os.PathLike)):
        name = Path(image).name
    image = open_image(image)
    regions = region_parts(explanations[:MOST_REGIONS], image.size)
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode("ascii")
    return page_template(TEMPLATE).render(
        name=name,
        size=image.size,
        image=image_url(image),
        regions=regions,
        left_out=left_out + len(explanations[MOST_REGIONS:]),
        axes={task: _axis(regions, task) for task in NOISE},
        noise=NOISE,
        coarse=_COARSE,
        shown=_BEST,
        most_tags=_MOST_TAGS,
        measured=[kind for kind in _MEASURED if _is_asked(kind[0], explanations)],
        version=__version__,
        script=Markup(_SCRIPT),
        script_hash=digest,  # no other script may run
    )


def page_template(path: Path) -> Template:
    """A template that knows the filters of these pages; whatever it shows is escaped."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        plain=plain,
        attribute=attribute,
        number=number,
        times=times,
        bar=_bar,
        meters=_meters,
        outside=_outside,
    )
    return environment.from_string(path.read_text(encoding="utf-8"))


def region_parts(
    explanations: Sequence[RegionExplanation], size: tuple[int, int]
) -> list[RegionPart]:
    """Regions as shown, numbered in their order; `size` is the image's, in pixels."""
    return list(_parts(explanations, size))


def _parts(
    explanations: Sequence[RegionExplanation], size: tuple[int, int]
) -> Iterator[RegionPart]:
    boxes = [visible_box(one.prediction.box, size) for one in explanations]
    crops = sum(len(one.views) for one in explanations)
    most = max(_CROPS_BYTES // max(crops, 1), _LEAST_CROP_BYTES)
    for index, (one, badge) in enumerate(zip(explanations, _badges(boxes, size))):
        views = tuple(
            ViewPart(
                view=view,
                crop=_data_url(view.crop, most),
                changes=_changes(view, one.prediction),
                alone=frozenset(task for task in TASKS if _is_alone(task, one.views)),
                instead=_instead(view, one.prediction),
            )
            for view in one.views
        )
        yield RegionPart(index + 1, one.prediction, boxes[index], badge, views)


def _is_alone(task: str, views: Sequence[ViewExplanation]) -> bool:
    """Whether a task sees the same frame in all its views."""
    return len({view.frame for view in views if task in view.tasks}) == 1


def _is_asked(task: str, explanations: Sequence[RegionExplanation]) -> bool:
    return any(task in view.tasks for one in explanations for view in one.views)


def _changes(view: ViewExplanation, prediction: RegionPrediction) -> dict[str, list[NamedScore]]:
    """The caption's gain, and what happens to the names that are best with or without the view."""
    found = {"caption": [] if view.caption_gain is None else [("", view.caption_gain)]}
    for task in SCORED:
        with_it, without = getattr(prediction, task), _without(view, prediction, task)
        best = {name for scores in (with_it, without) for name, _ in scores[:_BEST]}
        changes = [
            (name, change)
            for name, change in getattr(view, task)
            if name in best and abs(change) >= NOISE[task]
        ]
        found[task] = changes[:_MOST_CHANGES]
    return found


def _without(view: ViewExplanation, prediction: RegionPrediction, task: str) -> list[NamedScore]:
    """The scores without the view, best first; none where the task does not look at it."""
    changes = dict(getattr(view, task))
    scores = [
        (name, score - changes[name])
        for name, score in getattr(prediction, task)
        if name in changes
    ]
    return sorted(scores, key=lambda pair: -pair[1])


def _instead(view: ViewExplanation, prediction: RegionPrediction) -> str | None:
    without = _without(view, prediction, "categories")
    if not without or without[0][0] == prediction.categories[0][0]:
        return None
    return without[0][0]


def _axis(regions: Sequence[RegionPart], task: str) -> float:
    """The largest change on the page: its bars share one scale."""
    changes = [
        abs(change)
        for region in regions
        for part in region.views
        for _, change in part.changes[task]
        if math.isfinite(change)
    ]
    return max([_LEAST_AXIS[task], *changes])


def _badges(boxes: Sequence[Box | None], size: tuple[int, int]) -> list[Box | None]:
    """Where the numbers of boxes are drawn: beside each, away from the numbers before it."""
    height = _BADGE * max(size)
    taken: list[Box] = []
    places: list[Box | None] = []
    for index, box in enumerate(boxes):
        if box is None:
            places.append(None)
            continue
        width = height * (0.6 + 0.55 * len(str(index + 1)))
        x1, y1, x2, y2 = box
        corners = [(x, y) for y in (y1 - height, y2, y1) for x in (x1, x2 - width)]
        inside = [
            (left, top, left + width, top + height)
            for left, top in corners
            if left >= 0 and top >= 0 and left + width <= size[0] and top + height <= size[1]
        ] or [(max(x1, 0.0), max(y1, 0.0), x1 + width, y1 + height)]
        place = min(inside, key=lambda place: sum(_overlap(place, other) for other in taken))
        taken.append(place)
        places.append(place)
    return places


def _overlap(box: Box, other: Box) -> float:
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return max(width, 0.0) * max(height, 0.0)


def image_url(image: Image.Image, side: int = _IMAGE_SIDE) -> str:
    """An image as part of a page, no side longer than `side` pixels."""
    return _data_url(_fitted(image, side), _IMAGE_BYTES)


def _fitted(image: Image.Image, side: int) -> Image.Image:
    image = image.copy()
    image.thumbnail((side, side))
    return image


def _data_url(image: Image.Image, most: int) -> str:
    """An image as part of a page, in at most so many bytes before it is written as text."""
    for quality in _QUALITIES:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality, subsampling=0 if quality > 90 else 2)
        if stream.tell() <= most:
            text = base64.b64encode(stream.getvalue()).decode("ascii")
            return f"data:image/jpeg;base64,{text}"
    return _data_url(_fitted(image, max(image.size) // 2), most)


def _meters(scores: Sequence[NamedScore], task: str) -> list[tuple[str, float, float]]:
    """The best names, their scores, and the lengths of their bars, 0 to 1.

    A list's scores say which name fits best, not how well: the bars run from its lowest score.
    """
    if not scores:
        return []
    best, lowest = scores[0][1], scores[-1][1]
    spread = max(best - lowest, _LEAST_SPREAD[task])
    return [(name, value, _bar(spread - best + value, spread)) for name, value in scores[:_BEST]]


def _bar(value: float, axis: float) -> float:
    """A bar's length, -1 to 1; 0 for what is no number."""
    return round(min(max(value / axis, -1.0), 1.0), 4) if math.isfinite(value) else 0.0


def _outside(frame: Box, size: tuple[int, int]) -> str:
    """Path of what lies around a frame, by the even-odd rule."""
    x1, y1, x2, y2 = (f"{value:g}" for value in frame)
    return f"M0 0H{size[0]}V{size[1]}H0ZM{x1} {y1}H{x2}V{y2}H{x1}Z"


def plain(text: str) -> str:
    """A text that can be written to a file and is not endless."""
    # Halves of surrogate pairs, as in odd file names, are no text.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}\u2026"


def attribute(name: str) -> tuple[str, str]:
    """Type and first synonym of an attribute.

    >>> attribute("color:red/crimson"), attribute("wet")
    (('color', 'red'), ('', 'wet'))
    """
    kind, _, words = plain(name).rpartition(":")
    return kind, words.split("/")[0]


def number(value: float, *, sign: bool = False) -> str:
    """Two digits after the point, with a true minus.

    >>> number(-0.5), number(0.256, sign=True), number(-0.001, sign=True)
    ('\u22120.50', '+0.26', '0.00')
    """
    text = f"{value:+.2f}" if sign else f"{value:.2f}"
    if float(text) == 0:
        text = "0.00"
    return text.replace("-", "\u2212")


def times(gain: float) -> str:
    """How many times as likely a gain in nats makes each token.

    >>> times(0.69), times(-0.69), times(6.6)
    ('2.0', '0.5', '735')
    """
    factor = math.exp(min(gain, 20.0))
    if factor >= 10:
        return f"{factor:,.0f}"
    return f"{factor:.1f}" if factor >= 1 else f"{factor:.2g}"
