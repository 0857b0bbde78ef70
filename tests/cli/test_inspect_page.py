"""The page of `dynrefer inspect`."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import pytest
from page_elements import EVIL, Page
from PIL import Image

from lavis_dynrefer.cli.inspect.image_checks import check_images, count_findings
from lavis_dynrefer.cli.inspect.inspect_page import (
    SplitView,
    chart,
    marks,
    notices,
    render_page,
)
from lavis_dynrefer.cli.inspect.inspect_samples import SIDE, choose_rejected, choose_samples
from lavis_dynrefer.cli.inspect.region_statistics import Histogram, describe_split
from lavis_dynrefer.pages.region_drawing import REJECTED_COLOUR


def view_of(region_set, rng, **options):
    return SplitView(
        describe_split(region_set),
        choose_samples(region_set, 12, rng()),
        choose_rejected(region_set, 12, rng()),
        **options,
    )


@pytest.fixture
def html(region_set, rng):
    return render_page("demo", [("images", EVIL)], [view_of(region_set, rng)], [EVIL])


def test_captions_and_paths_cannot_run_anything(html):
    page = Page(html)

    page.assert_harmless()
    assert "script-src 'sha256-" in page.policy
    assert page.text.count('<script>alert("x")</script>') == 4  # caption, longest, fact, warning


def test_the_page_needs_no_other_file(html):
    assert Page(html).references == {"data:image/jpeg;base64", "#split-1"}
    assert "url(" not in html
    assert "@import" not in html


def test_images_are_embedded_at_limited_size(html):
    first = Page(html).find("img")[0]["src"].split(",")[1]
    with Image.open(io.BytesIO(base64.b64decode(first))) as image:
        assert image.format == "JPEG"
        assert image.size == (SIDE, SIDE // 2)


def test_boxes_are_drawn_in_pixels_of_the_file(html):
    page = Page(html)
    boxes = page.find("rect", class_="box")
    assert page.find("svg")[0]["viewbox"] == "0 0 1200 600"
    assert [boxes[1][key] for key in ("x", "y", "width", "height")] == ["120", "60", "120", "120"]


def test_numbers_and_names_are_on_the_page(html):
    text = Page(html).text
    assert "3 regions kept of 6 read" in text
    assert "3 regions dropped, 50 %" in text
    assert "demo-protocol" in text
    assert "color a" in text
    assert "score 0.50" in text


def test_dropped_regions_are_drawn_red_with_their_reasons(html):
    page = Page(html)
    (card,) = page.find("article", class_="card rejected")
    assert "outside image region 12 lies outside caption: far away" in card["text"]
    assert f"--colour: {REJECTED_COLOUR}" in html


def test_results_of_the_image_check_are_shown(region_set, rng):
    report = count_findings(check_images(region_set.images.values(), decode=False), decoded=False)
    text = Page(render_page("demo", [], [view_of(region_set, rng, images=report)])).text
    assert "2 opened, not decoded; 1 cannot be used" in text
    assert "missing image 1 no such file" in text


def test_problems_are_listed_first(region_set, rng):
    report = count_findings(check_images(region_set.images.values(), decode=False), decoded=False)
    found = notices(view_of(region_set, rng, images=report))
    assert found[0] == "50 % of the regions were dropped, mostly: outside image."
    assert found[1].startswith("1 of 2 sample images do not fit or cannot be read")
    assert found[2] == "1 of 2 image files cannot be used."


def test_boxes_beyond_their_images_are_suspicious(region_set, rng):
    sound = replace(region_set, regions=region_set.regions[:2], rejected=[])
    assert notices(view_of(sound, rng)) == []
    wide = [replace(region_set.regions[0], box=(0.0, 0.0, 1300.0, 10.0))]
    (found,) = notices(view_of(replace(sound, regions=wide), rng))
    assert found.startswith("100 % of the boxes reach beyond their image")


def test_bars_are_relative_to_the_highest():
    drawn = chart(Histogram((0, 1, 2, 3), (0, 4, 1, 0), 1.0), "words")
    assert drawn.bars == [(1, "1 words: 4 (80 %)"), (0.25, "2 words: 1 (20 %)")]
    assert drawn.ticks == [(0.25, "1"), (0.75, "2")]


def test_labels_of_bins():
    drawn = chart(Histogram((0.0, 8.0, 16.0), (0, 1, 3), 18.0), "px", trim=False)
    names = [text.split(":")[0] for _, text in drawn.bars]
    assert names == ["0\u20138 px", "8\u201316 px", "16 and more px"]
    assert drawn.ticks == [(0, "0"), (1 / 3, "8"), (2 / 3, "16")]


def test_numbers_of_boxes_stay_inside_the_image(region_set, rng):
    for sample in choose_samples(region_set, 12, rng()):
        for _, _, (left, top, right, bottom) in marks(sample):
            assert 0 <= left < right <= sample.size[0]
            assert 0 <= top < bottom <= sample.size[1]
