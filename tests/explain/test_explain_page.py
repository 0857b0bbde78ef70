"""The page of explanations: what is on it, and that it is harmless, small and complete."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from lavis_dynrefer import RegionPredictor
from lavis_dynrefer.explain.explain_page import MOST_REGIONS, explanation_page
from lavis_dynrefer.explain.explanation import RegionExplanation, ViewExplanation, explain
from lavis_dynrefer.structures import RegionPrediction
from lavis_dynrefer.synthetic import make_scene, render

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>" onload="alert(2)'
VOID = {"meta", "img", "rect", "path", "use", "image"}


class Page(HTMLParser):
    """Elements, each with its attributes and the text inside it."""

    def __init__(self, html):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(html)
        assert self._open == [], "elements left open"

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "text": "", **dict(attributes)}
        element["inside"] = [parent for parent in self._open]
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self._open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self._open:
            element["text"] = f"{element['text']} {' '.join(data.split())}".strip()

    def find(self, tag, *, within=None, **attributes):
        """Elements of a tag, also by `class_` and other attributes."""
        wanted = {key.rstrip("_"): value for key, value in attributes.items()}
        return [
            element
            for element in self.elements
            if element["tag"] == tag
            and all(element.get(key) == value for key, value in wanted.items())
            and (within is None or any(parent is within for parent in element["inside"]))
        ]

    @property
    def text(self):
        (body,) = self.find("body")
        return body["text"]


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


def test_every_region_and_view_is_there(page):
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


def test_answers_stand_beside_their_scores(page):
    text = page(region()).find("section", class_="region")[0]["text"]

    assert "probability 0.26 · box 20, 20, 60, 60" in text
    assert "dog 0.99 grass 0.70" in text
    assert "Attributes red color 0.60 wet 0.50" in text
    assert "Categories dog 0.80 cat 0.70" in text


def test_a_box_in_the_image_leads_to_its_region(page):
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


def test_bars_are_as_long_as_changes_and_point_their_way(page):
    shown = page(region(view(0.0, caption_gain=2.0), view(0.5, caption_gain=-0.5)))

    gains = [shown.find("span", within=one) for one in shown.find("p", class_="gain")]
    bars = [next(one for one in gain if one.get("class") in ("for", "against")) for gain in gains]
    assert [(bar["class"], bar["style"]) for bar in bars] == [
        ("for", "width: 50.0%"),
        ("against", "width: 12.5%"),
    ]
    texts = [one["text"] for one in shown.find("p", class_="gain")]
    assert texts == ["7.4\u00d7 as likely +2.00", "0.61\u00d7 as likely \u22120.50"]


def test_small_changes_are_said_to_hardly_matter(page):
    quiet = {"caption_gain": 0.03, "attributes": (("wet", 0.004),), "categories": (("cat", 0.0),)}

    shown = page(region(view(0.0, **quiet), view(0.5)))

    first = shown.find("article")[0]
    assert first["text"].count("Hardly matters") == 3
    assert shown.find("p", within=first, class_="gain small")


def test_of_many_changes_those_of_the_best_names_are_shown(page):
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


def test_another_best_category_without_the_view_is_named(page):
    turned = view(0.0, categories=(("cat", -0.3), ("dog", 0.2)))

    first, second = page(region(turned, view(0.5, categories=(("dog", 0.05),)))).find("article")

    assert "Without it: cat instead of dog ." in first["text"]
    assert "Without it" not in second["text"]


def test_tasks_are_told_apart_from_those_that_do_not_see_a_view(page):
    narrow = view(0.1, tasks=("attributes",), caption_gain=None, categories=())
    shown = page(region(view(0.0), narrow, view(0.5, tasks=("tags", "caption"), attributes=())))

    second = shown.find("article")[1]
    assert "Used for attributes Caption nats/token Not used Attributes" in second["text"]
    assert second["text"].endswith("Categories logit Not used")


def test_a_view_without_a_stand_in_is_not_called_unimportant(page):
    text = page(region(view(0.0, caption_gain=0.0))).find("article")[0]["text"]

    assert text.count("Nothing else could take its place") == 3
    assert "Hardly matters" not in text


def test_only_what_was_asked_is_on_the_page(page):
    alone = [
        view(scale, tasks=("categories",), caption_gain=None, attributes=()) for scale in (0, 1)
    ]
    shown = page(
        region(*alone, caption=None, caption_score=None, tags=(), attributes=()), name="x.png"
    )

    assert [one["text"] for one in shown.find("h2")] == ["dog"]
    assert {one["text"] for one in shown.find("h5")} == {"Categories logit"}
    assert "probability" not in shown.find("main")[0]["text"]


def test_no_regions_leave_the_image(page):
    shown = page()

    assert "No regions were asked about." in shown.text
    assert shown.find("image")[0]["href"].startswith("data:image/jpeg;base64,")
    assert shown.find("section", class_="region") == []


def test_regions_beyond_the_limit_are_counted(page):
    shown = page(*[region(view())] * (MOST_REGIONS + 2), left_out=1000)

    assert len(shown.find("section", class_="region")) == MOST_REGIONS
    assert "1,002 more regions are not explained here." in shown.text


def test_texts_cannot_run_anything(page):
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

    assert len(shown.find("script")) == 1
    assert {one["tag"] for one in shown.elements}.isdisjoint({"iframe", "object", "embed", "link"})
    assert not [key for one in shown.elements for key in one if key.startswith("on")]
    assert len(shown.find("img")) == 2
    # name, list, title, tag, attribute, category, change of either, instead of
    assert shown.text.count('<script>alert("x")</script>') >= 7


def test_only_the_script_of_the_page_may_run(page):
    shown = page(region())

    (policy,) = (
        one["content"] for one in shown.find("meta") if "content" in one and "http-equiv" in one
    )
    code = re.search(r"<script>(.*)</script>", explanation_page(Image.new("RGB", (9, 9)), []), re.S)
    digest = base64.b64encode(hashlib.sha256(code[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_nothing_outside_is_referred_to(image):
    html = explanation_page(image, [region()], name="x.png")

    references = [one[key] for one in Page(html).elements for key in ("src", "href") if key in one]
    assert {reference.split(",")[0].rstrip("0123456789") for reference in references} == {
        "data:image/jpeg;base",
        "#image",
        "#image-top",
        "#region-",
    }
    assert not re.search(r"://|url\(|@import", html)


def test_every_image_is_described(page):
    shown = page(region(), region())

    assert [one["alt"] for one in shown.find("img")] == [
        f"Region {number} at scale {scale}, as the model saw it"
        for number in (1, 2)
        for scale in ("0", "0.5")
    ]
    drawings = [one for one in shown.find("svg") if one.get("aria-hidden") != "true"]
    assert all(one["role"] == "img" and one["aria-label"] for one in drawings)


def test_the_crop_is_what_the_model_saw(page):
    seen = Image.linear_gradient("L").resize((64, 64)).convert("RGB")

    (image,) = page(region(view(crop=seen))).find("img")

    shown = Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1])))
    difference = np.asarray(shown, dtype=int) - np.asarray(seen, dtype=int)
    assert np.abs(difference).max() <= 4  # of JPEG


def test_twenty_regions_make_a_page_of_bounded_size():
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


def test_names_may_be_long_and_odd(image):
    html = explanation_page(
        image,
        [region(caption="a\x00b \ud800", categories=(("c" * 10_000, 0.5),))],
        name="odd\udcff.png",
    )

    assert html.encode("utf-8")
    assert "c" * 299 in html
    assert "c" * 300 not in html
    assert "odd?.png" in html


def test_numbers_that_are_none_do_not_break_the_page(page):
    broken = view(0.0, caption_gain=math.nan, attributes=(("wet", math.inf),))

    shown = page(region(broken, view(0.5), categories=(("dog", math.nan), ("cat", 0.1))))

    assert len(shown.find("article")) == 2
    widths = [one["style"] for one in shown.find("span") if "style" in one]
    assert all(re.fullmatch(r"width: [\d.]+%", width) for width in widths)


def test_the_numbers_of_boxes_stay_inside_and_apart(page):
    boxes = [(0, 0, 99, 79), (0, 0, 20, 20), (80, 60, 100, 80), (40, 40, 60, 60), (41, 40, 60, 61)]

    shown = page(*[region(box=box) for box in boxes])

    marks = [
        [float(one[key]) for key in ("x", "y", "width", "height")]
        for one in shown.find("rect", class_="badge")
    ]
    assert len(marks) == 5
    assert all(x >= 0 and y >= 0 and x + w <= 100 and y + h <= 80 for x, y, w, h in marks)
    assert not [pair for pair in combinations(marks, 2) if overlap(*pair)]


def overlap(one, other):
    return all(
        min(one[axis] + one[axis + 2], other[axis] + other[axis + 2])
        > max(one[axis], other[axis]) + 0.01
        for axis in (0, 1)
    )


def test_a_path_gives_the_name(image, tmp_path):
    image.save(tmp_path / "my house.png")

    shown = Page(explanation_page(tmp_path / "my house.png", []))

    assert shown.find("h1")[0]["text"] == "my house.png"


def test_explanations_of_the_model_fill_the_page():
    scene = make_scene(0, 2_000_001)
    image, boxes = render(scene), [item.box for item in scene.objects[:2]]
    explained = explain(RegionPredictor("tiny", device="cpu"), image, boxes, views="task")

    shown = Page(explanation_page(image, explained))

    assert [one["text"] for one in shown.find("h2")] == [
        one.prediction.caption for one in explained
    ]
    assert len(shown.find("article")) == sum(len(one.views) for one in explained)
