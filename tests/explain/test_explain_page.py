"""The explanation page: what it shows, and that it is complete, harmless and small."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from page_elements import EVIL, Page
from PIL import Image

from lavis_dynrefer import RegionPredictor
from lavis_dynrefer.explain import (
    MAX_REGIONS,
    RegionExplanation,
    ViewExplanation,
    explain,
    explanation_page,
)
from lavis_dynrefer.structures import RegionPrediction
from lavis_dynrefer.synthetic import make_scene, render


def view(scale=0.0, **changes):
    """A view of the region (20, 20, 60, 60) of an image of 100 x 80 pixels."""
    frame = tuple(round(a + scale * (b - a)) for a, b in zip((20, 20, 60, 60), (0, 0, 100, 80)))
    facts = {
        "scale": scale,
        "frame": frame,
        "crop": Image.new("RGB", (64, 64), "green"),
        "region": (4.0, 4.0, 60.0, 60.0),
        "tasks": ("caption", "tags", "attributes", "categories"),
        "caption_gain": 1.0,
        "attributes": (("color:red/crimson", 0.2), ("wet", -0.1)),
        "categories": (("dog", 0.4), ("cat", -0.3)),
    }
    return ViewExplanation(**{**facts, **changes})


SAID = RegionPrediction(
    box=(20.0, 20.0, 60.0, 60.0),
    caption="a small dog",
    caption_score=0.256,
    tags=(("dog", 0.99), ("grass", 0.7)),
    attributes=(("color:red/crimson", 0.6), ("wet", 0.5)),
    categories=(("dog", 0.8), ("cat", 0.7)),
)


def region(*views, **answers):
    return RegionExplanation(replace(SAID, **answers), views or (view(0.0), view(0.5)))


@pytest.fixture
def image():
    return Image.new("RGB", (100, 80), "white")


@pytest.fixture
def page(image):
    """A function from explanations to their page."""
    return lambda *explanations, **options: Page(explanation_page(image, explanations, **options))


def test_every_region_and_view_is_shown(page):
    shown = page(
        region(view(0.0), view(0.25), view(1.0)), region(view(0.0), caption="a cat"), name="x.png"
    )

    first, second = shown.find("section", class_="region")
    assert (first["id"], second["id"]) == ("region-1", "region-2")
    assert [one["text"] for one in shown.find("h2")] == ["a small dog", "a cat"]
    headers = [one["text"] for one in shown.find("header", within=first)][1:]
    assert headers == ["Region scale 0", "In context scale 0.25", "Whole image scale 1"]
    assert len(shown.find("article", within=second)) == 1
    assert [one["text"] for one in shown.find("h1")] == ["x.png"]
    assert [one["alt"] for one in shown.find("img")] == [
        f"Region {number} at scale {scale}, as the model saw it"
        for number, scale in ((1, "0"), (1, "0.25"), (1, "1"), (2, "0"))
    ]
    assert shown.references == {
        *("data:image/jpeg;base64", "#image", "#image-top", "#region-1", "#region-2")
    }
    assert not re.search(r"://|url\(|@import", shown.html)


def test_answers_are_shown_with_their_scores(page):
    text = page(region()).find("section", class_="region")[0]["text"]

    assert "probability 0.26 · box 20, 20, 60, 60" in text
    assert "dog 0.99 grass 0.70" in text
    assert "Attributes red color 0.60 wet 0.50" in text
    assert "Categories dog 0.80 cat 0.70" in text


def test_boxes_in_the_image_link_to_their_regions(page):
    shown = page(region(), region(box=(0.0, 0.0, 10.0, 10.0)))

    targets = {one["id"] for one in shown.elements if "id" in one}
    links = [one["href"] for one in shown.find("a")]
    assert {link[1:] for link in links} <= targets
    assert links.count("#region-2") == 3  # box, number, list


def test_every_frame_is_drawn_in_the_image(page):
    shown = page(region(view(0.0), view(0.5)))

    _, wide = shown.find("svg", class_="where")
    assert wide["aria-label"] == "The part of the image from 10, 10 to 80, 70"
    (frame,) = shown.find("rect", within=wide, class_="frame")
    assert [frame[key] for key in ("x", "y", "width", "height")] == ["10", "10", "70", "60"]
    (other,) = shown.find("rect", within=wide, class_="other")
    assert other["width"] == "40"


def test_bars_show_size_and_direction_of_changes(page):
    quiet = view(1.0, caption_gain=0.03, attributes=(("wet", 0.004),), categories=(("cat", 0.0),))
    shown = page(region(view(0.0, caption_gain=2.0), view(0.5, caption_gain=-0.5), quiet))

    gains = [shown.find("span", within=one) for one in shown.find("p", class_="gain")]
    bars = [next(one for one in gain if one.get("class") in ("for", "against")) for gain in gains]
    assert [(bar["class"], bar["style"]) for bar in bars] == [
        ("for", "width: 50.0%"),
        ("against", "width: 12.5%"),
    ]
    texts = [one["text"] for one in shown.find("p", class_="gain")]
    assert texts == ["7.4\u00d7 as likely +2.00", "0.61\u00d7 as likely \u22120.50"]
    assert shown.find("article")[2]["text"].count("Hardly matters") == 3


def test_only_changes_of_the_best_names_are_shown(page):
    names = [f"name{index}" for index in range(9)]
    scores = tuple((name, 1.0 - 0.1 * index) for index, name in enumerate(names))
    changes = (("name8", -0.7), ("name7", 0.5), ("name0", 0.3), ("name1", 0.2), ("name2", 0.1))
    rest = tuple((name, 0.0) for name in names[3:7])

    shown = page(
        region(
            view(0.0, categories=changes + rest), view(0.5), categories=scores, attributes=scores
        )
    )

    # name8 would be the best but one without the view; name7 is and stays among the last.
    (changed,) = shown.find("ul", within=shown.find("article")[0])
    assert re.findall(r"name\d", changed["text"]) == ["name8", "name0", "name1"]


def test_page_names_the_best_category_without_a_view(page):
    turned = view(0.0, categories=(("cat", -0.3), ("dog", 0.2)))

    first, second = page(region(turned, view(0.5, categories=(("dog", 0.05),)))).find("article")

    assert "Without it: cat instead of dog ." in first["text"]
    assert "Without it" not in second["text"]


def test_page_marks_tasks_that_do_not_use_a_view(page):
    narrow = view(0.1, tasks=("attributes",), caption_gain=None, categories=())
    shown = page(region(view(0.0), narrow, view(0.5, tasks=("tags", "caption"), attributes=())))

    second = shown.find("article")[1]
    assert "Used for attributes Caption nats/token Not used Attributes" in second["text"]
    assert second["text"].endswith("Categories logit Not used")


def test_irreplaceable_view_is_not_called_unimportant(page):
    text = page(region(view(0.0, caption_gain=0.0))).find("article")[0]["text"]

    assert text.count("No other view could replace it") == 3
    assert "Hardly matters" not in text


def test_page_shows_only_requested_tasks(page):
    alone = [
        view(scale, tasks=("categories",), caption_gain=None, attributes=()) for scale in (0, 1)
    ]
    shown = page(
        region(*alone, caption=None, caption_score=None, tags=(), attributes=()), name="x.png"
    )

    assert [one["text"] for one in shown.find("h2")] == ["dog"]
    assert {one["text"] for one in shown.find("h5")} == {"Categories logit"}
    assert "probability" not in shown.find("main")[0]["text"]


def test_a_page_without_regions_shows_the_image(page):
    shown = page()

    assert "No regions were asked about." in shown.text
    assert shown.find("image")[0]["href"].startswith("data:image/jpeg;base64,")
    assert shown.find("section", class_="region") == []


def test_regions_beyond_the_limit_are_counted(page):
    shown = page(*[region(view())] * (MAX_REGIONS + 2), left_out=1000)

    assert len(shown.find("section", class_="region")) == MAX_REGIONS
    assert "1,002 more regions are not explained here." in shown.text


def test_texts_are_escaped(page):
    shown = page(
        region(
            view(0.0, attributes=((EVIL, 0.4),), categories=((EVIL, -0.4),)),
            view(0.5),
            caption=EVIL,
            tags=((EVIL, 0.9),),
            attributes=((EVIL, 0.6),),
            categories=((EVIL, 0.7), ("dog", 0.6)),
        ),
        name=EVIL,
    )

    shown.assert_harmless()
    assert len(shown.find("img")) == 2
    # name, list, title, tag, attribute, category, change of either, instead of
    assert shown.text.count('<script>alert("x")</script>') >= 7


def test_a_page_of_twenty_regions_has_a_bounded_size():
    noise = np.random.default_rng(0).integers(0, 256, (900, 1300, 3), dtype=np.uint8)
    crop = Image.fromarray(noise[:224, :224])
    names = tuple((f"name{index}", index / 200) for index in reversed(range(117)))
    views = [
        view(scale, crop=crop, attributes=names, categories=names) for scale in (0, 0.1, 0.4, 1)
    ]

    html = explanation_page(
        Image.fromarray(noise), [region(*views, attributes=names, categories=names)] * 20
    )

    assert 500_000 < len(html.encode()) < 3_000_000


def test_numbers_that_are_not_finite_do_not_break_the_page(page):
    broken = view(0.0, caption_gain=math.nan, attributes=(("wet", math.inf),))

    shown = page(region(broken, view(0.5), categories=(("dog", math.nan), ("cat", 0.1))))

    assert len(shown.find("article")) == 2
    widths = [one["style"] for one in shown.find("span") if "style" in one]
    assert all(re.fullmatch(r"width: [\d.]+%", width) for width in widths)


def test_explanations_by_the_model_fill_the_page():
    scene = make_scene(0, 2_000_001)
    image, boxes = render(scene), [item.box for item in scene.objects[:2]]
    predictor = RegionPredictor("tiny", device="cpu")
    explained = explain(predictor, predictor.encode(image, boxes, views="task"))

    shown = Page(explanation_page(image, explained))

    assert [one["text"] for one in shown.find("h2")] == [
        one.prediction.caption for one in explained
    ]
    assert len(shown.find("article")) == sum(len(one.views) for one in explained)


def test_what_is_not_mask_is_shaded_in_every_view(page):
    # A grid of 2 x 2 over the region from 4 to 60: cells of 28; the second row is not mask, and of
    # the first row the right cell is less than half.
    masked = replace(region(), mask=((255, 100), (0, 0)))

    shown = page(masked, region())

    shades = [one["d"] for one in shown.find("path", class_="beside-mask")]
    assert shades == ["M32 4h28v28h-28zM4 32h56v28h-56z"] * 2


def test_pages_show_the_masks_that_were_used(image):
    predictor = RegionPredictor("tiny", device="cpu")
    mask = [[20, 20, 60, 20, 20, 60]]
    encoded = predictor.encode(
        image, [[20, 20, 60, 60], [0, 0, 9, 9]], masks=[mask, None], masks_as="cells"
    )

    first, second = explain(predictor, encoded, tasks=["categories"])

    assert len(first.mask) == 28
    assert first.mask[0][0] == 255
    assert first.mask[-1][-1] == 0
    assert second.mask is None
    dimmed = predictor.encode(image, [[20, 20, 60, 60]], masks=[mask], masks_as="dim")
    assert explain(predictor, dimmed, tasks=["categories"])[0].mask is None
