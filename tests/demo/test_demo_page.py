"""What the page shows: all answers, and no word can run as code."""

from __future__ import annotations

import re

import pytest
from page_elements import EVIL

from lavis_dynrefer.demo import page_texts as shown
from lavis_dynrefer.demo.example_scenes import write_examples
from lavis_dynrefer.explain.explanation import explain
from lavis_dynrefer.synthetic import make_scene, render
from lavis_dynrefer.views.policies import TaskPrior

COLOURS = ["rgb(1, 2, 3)", "rgb(4, 5, 6)"]


@pytest.fixture(scope="module")
def scene():
    return render(make_scene(0, 2_000_001))


@pytest.fixture(scope="module")
def said(predictor, scene):
    boxes = [[98, 50, 237, 180], [232, 110, 278, 154]]
    encoded = predictor.encode(scene, boxes, views=TaskPrior(num_views=2))
    return explain(predictor, encoded, attributes=["wet", EVIL])


@pytest.fixture(scope="module")
def html(scene, said):
    return shown.answers(scene, said, COLOURS)


def test_every_box_has_a_card_with_its_answers(html, said):
    cards = re.findall(r'<article class="dr-card" style="--box: ([^"]*)" data-box="([^"]*)"', html)
    captions = re.findall(r'class="dr-caption"><bdi>(.*?)</bdi>', html)
    first = html.split("</article>")[0]

    assert cards == [("rgb(1, 2, 3)", "98,50,237,180"), ("rgb(4, 5, 6)", "232,110,278,154")]
    assert captions == [one.prediction.caption for one in said]
    assert f"<bdi>{said[0].prediction.categories[0][0]}</bdi>" in first
    assert re.findall(r"<bdi>([^<]*)</bdi></li>", first) == [
        name for name, _ in said[0].prediction.tags
    ]


def test_every_view_is_shown_with_its_scale_and_tasks(html, said):
    first = html.split("</article>")[0]

    assert re.findall(r"scale ([\d.]+)</span>", first) == [
        f"{view.scale:g}" for view in said[0].views
    ]
    assert first.count("as the model saw it") == len(said[0].views)
    assert "Used for every answer" in first
    assert "Used for tags, categories" in first


def test_words_are_escaped(html):
    assert "<script" not in html
    assert "<img src=x" not in html
    assert "&lt;script&gt;" in html
    assert set(re.findall(r'(?:src|href)="([^"]{0,5})', html)) == {"data:", "#dr-i"}


def test_notice_shows_its_reason_escaped():
    notice = shown.render_part("notice", message=EVIL)

    assert 'role="alert"' in notice
    assert "<script" not in notice
    assert "&lt;script&gt;" in notice


@pytest.mark.parametrize(("name", "warned"), [("tiny", True), ("flant5xl", False)])
def test_head_warns_about_the_tiny_model(name, warned):
    head = shown.render_part("head", model=name, device="cpu", tiny=name == "tiny")

    assert f"<b>{name}</b> on cpu" in head
    assert ("only drawn scenes" in head) is warned


def test_examples_are_small(tmp_path):
    examples = write_examples(tmp_path / "new" / "folder")

    html = shown.examples(examples)

    assert html.count("data-example=") == len(examples) == 4
    assert all(len(example.boxes) == 2 and example.path.is_file() for example in examples)
    assert len(html) < 100_000
