"""The page's texts: its head, its examples, and the answers, as html."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from lavis_dynrefer.demo.examples import Example
from lavis_dynrefer.explain.explain_page import NOISE, region_parts
from lavis_dynrefer.explain.explanation import RegionExplanation
from lavis_dynrefer.models.answering import TASKS
from lavis_dynrefer.pages.html_page import data_url, page_template
from lavis_dynrefer.predictor import RegionPredictor

ASSETS = Path(__file__).parents[1] / "pages" / "templates"
STYLE = (ASSETS / "demo.css").read_text(encoding="utf-8")
_PARTS = page_template("demo.html").module
_THUMBNAIL = 240  # pixels
_SHOWN = 5  # names of each kind
_MOST_TAGS = 12


def head(predictor: RegionPredictor, name: str) -> str:
    """Title and one sentence, and which model answers."""
    return _render("head", model=name, device=predictor.device.type, tiny=name == "tiny")


def examples(images: Sequence[Example]) -> str:
    """Images to click; button i has data-example="i"."""
    return _render("examples", images=[data_url(_open(one.path), side=_THUMBNAIL) for one in images])


def welcome() -> str:
    """What stands where the answers will be."""
    return _render("welcome")


def notice(message: str) -> str:
    """Why there is no answer."""
    return _render("notice", message=message)


def answers(
    image: Image.Image, explanations: Sequence[RegionExplanation], colours: Sequence[str]
) -> str:
    """A card for every region.

    Args:
        image: the image.
        explanations: what was said about its regions, and the views.
        colours: of each region's box, as css writes it.
    """
    return _render(
        "answers",
        size=image.size,
        image=data_url(image),
        regions=region_parts(explanations, image.size),
        colours=colours,
        tasks=TASKS,
        shown=_SHOWN,
        most_tags=_MOST_TAGS,
        least=NOISE["caption"],
    )


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _render(part: str, **values: object) -> str:
    return str(getattr(_PARTS, part)(**values))
