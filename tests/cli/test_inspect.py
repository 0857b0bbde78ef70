"""`dynrefer inspect`: the numbers, the page and the contact sheet."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from lavis_dynrefer.cli.inspect.image_checks import check_images
from lavis_dynrefer.cli.inspect.inspect_page import (
    SplitView,
    chart,
    mark,
    measure,
    notices,
    render_page,
    share,
)
from lavis_dynrefer.cli.inspect.inspect_samples import (
    REGIONS_PER_IMAGE,
    SIDE,
    choose_rejected,
    choose_samples,
    draw_sheet,
)
from lavis_dynrefer.cli.inspect.region_statistics import Histogram, describe_split
from lavis_dynrefer.pages.region_drawing import REJECTED_COLOUR
from lavis_dynrefer.structures import (
    AttributeInfo,
    ImageRecord,
    RegionRecord,
    RegionSet,
    Rejection,
)

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>" onload="alert(2)'


class Page(HTMLParser):
    """Elements, the text outside scripts and styles, and what is referred to."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.texts, self.scripts = [], [], 0
        self._inside = None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._inside = tag
        self.scripts += tag == "script"

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def region_set(tmp_path):
    """Two images: one large with two regions and two dropped ones, one that is not there."""
    Image.new("RGB", (1200, 600), "white").save(tmp_path / "1.png")
    images = {
        1: ImageRecord(1, str(tmp_path / "1.png"), 1200, 600),
        2: ImageRecord(2, str(tmp_path / "2.png"), 40, 30),
    }
    regions = [
        RegionRecord(10, 1, (120.0, 60.0, 240.0, 180.0), "a small dog", tags=("dog",)),
        RegionRecord(11, 1, (0.0, 0.0, 1200.0, 600.0), EVIL, category="house"),
        RegionRecord(20, 2, (5.0, 5.0, 20.0, 25.0), "a cat", attributes=(1, 0), score=0.5),
    ]
    outside = RegionRecord(12, 1, (30.0, -904.0, 50.0, -800.0), "far away")
    empty = RegionRecord(13, 1, (70.0, 80.0, 70.0, 95.0), "thin")
    rejected = [
        Rejection("outside_image", "region 12 lies outside", 1, outside),
        Rejection("empty_box", "region 13 is empty", 1, empty),
        Rejection("long_caption", "region 14 is long", 1),
    ]
    colours = [AttributeInfo(f"color:{name}/x", "color", "color", "is", "head") for name in "ab"]
    return RegionSet("demo-protocol", "val", images, regions, rejected, tuple(colours))


def view_of(region_set, **options):
    rng = np.random.default_rng(0)
    return SplitView(
        describe_split(region_set),
        choose_samples(region_set, 12, rng),
        choose_rejected(region_set, 12, rng),
        **options,
    )


@pytest.fixture
def html(region_set):
    return render_page("demo", [("images", EVIL)], [view_of(region_set)], [EVIL])


def test_captions_and_paths_cannot_run_anything(html):
    page = Page(html)

    assert page.scripts == 1
    assert {name for name, _ in page.elements}.isdisjoint({"iframe", "object", "embed", "link"})
    assert not [key for _, attributes in page.elements for key in attributes if key[:2] == "on"]
    assert page.text.count('<script>alert("x")</script>') == 4  # caption, longest, fact, warning


def test_a_script_that_slips_in_would_not_run(html):
    (policy,) = [item for item in Page(html).named("meta") if "http-equiv" in item]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert policy["content"].startswith("default-src 'none'")
    assert "script-src 'sha256-" in policy["content"]


def test_the_page_needs_no_other_file(html):
    page = Page(html)
    places = [
        attributes[key]
        for _, attributes in page.elements
        for key in ("src", "href", "data", "srcset", "xlink:href")
        if key in attributes
    ]
    assert {place.split(",")[0] for place in places} == {"data:image/jpeg;base64", "#split-1"}
    assert "url(" not in html
    assert "@import" not in html


def test_images_are_embedded_in_bounded_size(html):
    first = Page(html).named("img")[0]["src"].split(",")[1]
    with Image.open(io.BytesIO(base64.b64decode(first))) as image:
        assert image.format == "JPEG"
        assert image.size == (SIDE, SIDE // 2)


def test_boxes_are_drawn_in_pixels_of_the_file(html):
    drawing = Page(html).named("svg")[0]
    boxes = [item for item in Page(html).named("rect") if item.get("class") == "box"]
    assert drawing["viewbox"] == "0 0 1200 600"
    assert [boxes[1][key] for key in ("x", "y", "width", "height")] == [
        "120.0",
        "60.0",
        "120.0",
        "120.0",
    ]


def test_numbers_and_names_are_on_the_page(html):
    text = Page(html).text
    assert "3 regions kept of 6 read" in text
    assert "3 regions dropped, 50 %" in text
    assert "demo-protocol" in text
    assert "color a" in text
    assert "score 0.50" in text


def test_dropped_regions_are_drawn_red_with_their_reasons(html):
    page = Page(html)
    (card,) = [item for item in page.named("article") if "rejected" in item["class"]]
    assert card["class"] == "card rejected"
    assert f"--colour: {REJECTED_COLOUR}" in html
    assert "outside image region 12 lies outside caption: far away" in page.text


def test_a_region_without_a_box_on_record_is_counted_only(region_set):
    titles = [note.title for note in choose_rejected(region_set, 12, rng())[0].notes]
    assert titles == ["outside image", "empty box"]
    assert "long_caption" in {drop.reason for drop in describe_split(region_set).drops}


def rng(seed=0):
    return np.random.default_rng(seed)


def test_large_regions_come_first_so_that_small_ones_are_drawn_over_them(region_set):
    first = choose_samples(region_set, 12, rng())[0]
    assert [note.title for note in first.notes] == [EVIL, "a small dog"]


def test_a_missing_image_is_shown_gray_in_its_annotated_size(region_set):
    missing = choose_samples(region_set, 12, rng())[1]
    assert missing.image.size == (40, 30)
    assert "No such file" in missing.problem


def test_an_image_of_another_size_is_a_problem(region_set):
    larger = {**region_set.images, 1: replace(region_set.images[1], width=2400, height=1200)}
    sample = choose_samples(replace(region_set, images=larger), 1, rng(1))[0]
    assert sample.size == (1200, 600)
    assert sample.problem == "the file has 1200 x 600 pixels, the annotations say 2400 x 1200"


def test_of_many_regions_some_are_shown(region_set):
    many = [replace(region_set.regions[0], region_id=number) for number in range(30)]
    sample = choose_samples(replace(region_set, regions=many), 1, rng())[0]
    assert len(sample.notes) == REGIONS_PER_IMAGE
    assert sample.regions == 30


@pytest.fixture
def crowded(region_set):
    """Twenty images, none of which is there, with a region each."""
    images = {number: ImageRecord(number, "nowhere.jpg", 40, 30) for number in range(20)}
    regions = [RegionRecord(number, number, (1, 1, 9, 9), "a dog") for number in range(20)]
    return replace(region_set, images=images, regions=regions, rejected=[])


def test_the_seed_decides_which_images_are_drawn(crowded):
    def chosen(seed):
        return [item.image.image_id for item in choose_samples(crowded, 5, rng(seed))]

    assert chosen(1) == chosen(1) != chosen(2)
    assert len(set(chosen(1))) == 5


def test_rare_reasons_are_shown_beside_frequent_ones(crowded):
    rejected = [
        Rejection("rare" if number == 19 else "frequent", "why", number, region)
        for number, region in enumerate(crowded.regions)
    ]
    samples = choose_rejected(replace(crowded, rejected=rejected), 2, rng())
    assert {sample.notes[0].title for sample in samples} == {"rare", "frequent"}


def test_the_sheet_has_a_part_for_each_split(region_set):
    samples = choose_samples(region_set, 12, rng())
    one = draw_sheet([("val", samples)])
    assert draw_sheet([("val", samples), ("val: dropped", samples)]).height > 1.8 * one.height
    assert draw_sheet([("val", [])]) is None


def test_a_page_shows_the_check_of_its_images(region_set):
    report = check_images(region_set.images.values(), decode=False)
    text = Page(render_page("demo", [], [view_of(region_set, images=report)])).text
    assert "2 opened, not decoded; 1 cannot be used" in text
    assert "missing image 1 no such file" in text


def test_what_does_not_fit_is_said_first(region_set):
    report = check_images(region_set.images.values(), decode=False)
    found = notices(view_of(region_set, images=report))
    assert found[0] == "50 % of the regions were dropped, mostly: outside image."
    assert found[1].startswith("1 of 2 images drawn by lot do not fit or cannot be read")
    assert found[2] == "1 of 2 image files cannot be used."


def test_boxes_beyond_their_images_are_said_to_be_suspicious(region_set):
    wide = [replace(region_set.regions[0], box=(0.0, 0.0, 1300.0, 10.0))]
    found = notices(view_of(replace(region_set, regions=wide, rejected=[])))
    assert found == [
        "100 % of the boxes reach beyond their image: are they scaled, or corners and sizes "
        "mixed up?"
    ]


def test_nothing_is_said_of_a_sound_split(region_set):
    sound = replace(region_set, regions=region_set.regions[:2], rejected=[])
    assert notices(view_of(sound)) == []


def test_bars_are_as_high_as_their_share_of_the_highest():
    drawn = chart(Histogram((0, 1, 2, 3), (0, 4, 1, 0), 1.0, is_whole=True), "words")
    assert [bar.height for bar in drawn.bars] == [1, 0.25]
    assert drawn.bars[0].label == "1 words: 4 (80 %)"
    assert drawn.ticks == ((0.25, "1"), (0.75, "2"))
    assert drawn.median == 0.25


def test_bins_between_edges_are_named_by_both():
    drawn = chart(Histogram((0.0, 8.0, 16.0), (0, 1, 3), 18.0), "px", trim=False)
    assert [bar.label.split(":")[0] for bar in drawn.bars] == [
        "0\u20138 px",
        "8\u201316 px",
        "16 and more px",
    ]
    assert drawn.ticks == ((0, "0"), (1 / 3, "8"), (2 / 3, "16"))


def test_the_number_of_a_box_stays_inside_the_image():
    drawn = mark((99.0, 0.0, 100.0, 50.0), (100, 50))
    assert drawn["left"] + 1.2 * drawn["label"] < 100
    assert drawn["top"] == pytest.approx(50 - drawn["label"])


def test_the_number_of_a_box_stands_above_it_where_there_is_room():
    drawn = mark((20.0, 20.0, 30.0, 30.0), (100, 50))
    assert (drawn["left"], drawn["top"]) == (20, pytest.approx(20 - drawn["label"]))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01234, "0.012"), (1.5, "1.5"), (3.0, "3"), (12.345, "12.3"), (1234.5, "1,234")],
)
def test_numbers_have_as_many_digits_as_one_reads(value, text):
    assert measure(value) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(1, 8, "12.5 %"), (1, 100_000, "< 0.1 %"), (0, 9, "0 %"), (0, 0, "0 %"), (9, 9, "100 %")],
)
def test_shares(part, whole, text):
    assert share(part, whole) == text
