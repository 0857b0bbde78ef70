"""Parts of the page as html."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from lavis_dynrefer.demo.example_scenes import Example
from lavis_dynrefer.explain.explain_page import NOISE, beside_mask, region_parts
from lavis_dynrefer.explain.explanation import RegionExplanation
from lavis_dynrefer.images import open_image
from lavis_dynrefer.pages.html_page import data_url, page_template
from lavis_dynrefer.questions import TASKS

_THUMBNAIL = 240  # pixels
_SHOWN = 5  # names of each kind
_MAX_TAGS = 12


def render_part(part: str, **values: object) -> str:
    """Fill in a macro of demo.html: "head", "welcome" or "notice"."""
    return str(getattr(page_template("demo.html").module, part)(**values))


def examples(images: Sequence[Example]) -> str:
    """Images to click; button i has data-example="i"."""
    thumbnails = [data_url(open_image(one.path), side=_THUMBNAIL) for one in images]
    return render_part("examples", images=thumbnails)


def answers(
    image: Image.Image, explanations: Sequence[RegionExplanation], colours: Sequence[str]
) -> str:
    """A card for every region.

    Args:
        image: the image.
        explanations: answers about its regions, and what each view contributed.
        colours: one for each region, in css.
    """
    return render_part(
        "answers",
        size=image.size,
        image=data_url(image),
        regions=region_parts(explanations, image.size),
        colours=colours,
        tasks=TASKS,
        shown=_SHOWN,
        max_tags=_MAX_TAGS,
        noise=NOISE["caption"],
        beside_mask=beside_mask,
    )
