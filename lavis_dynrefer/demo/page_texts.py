"""The page's texts: its head, its examples, and the answers, as html."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from lavis_dynrefer.demo.example_scenes import Example
from lavis_dynrefer.explain.explain_page import NOISE, region_parts
from lavis_dynrefer.explain.explanation import RegionExplanation
from lavis_dynrefer.images import open_image
from lavis_dynrefer.pages.html_page import data_url, page_template
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.questions import TASKS

_THUMBNAIL = 240  # pixels
_SHOWN = 5  # names of each kind
_MOST_TAGS = 12


def style() -> str:
    """The style sheet of all parts."""
    return page_template("demo.css").render()


def head(predictor: RegionPredictor, name: str) -> str:
    """Title, one sentence, and which model answers."""
    return _render("head", model=name, device=predictor.device.type, tiny=name == "tiny")


def examples(images: Sequence[Example]) -> str:
    """Images to click; button i has data-example="i"."""
    thumbnails = [data_url(open_image(one.path), side=_THUMBNAIL) for one in images]
    return _render("examples", images=thumbnails)


def welcome() -> str:
    """What is shown before there are answers."""
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
        explanations: answers about its regions, and what each view contributed.
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


def _render(part: str, **values: object) -> str:
    return str(getattr(page_template("demo.html").module, part)(**values))
