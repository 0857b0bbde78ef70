"""Pages of explanations, as `dynrefer predict --explain` writes them."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from lavis_dynrefer import RegionPredictor
from lavis_dynrefer.cli import main
from lavis_dynrefer.cli.predict.predict_explain import explain_results
from lavis_dynrefer.formats import ImageResult
from lavis_dynrefer.structures import RegionPrediction
from lavis_dynrefer.synthetic import make_scene, render

DOCS = Path(__file__).parents[1] / "docs" / "why.md"
ASKED = {"tasks": ("categories",), "categories": ["flower", "tree"]}


@cache
def predictor():
    return RegionPredictor("tiny", device="cpu")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """An image and two of its regions, answered."""
    path = tmp_path_factory.mktemp("images") / "scene.png"
    scene = make_scene(0, 2_000_001)
    render(scene).save(path)
    regions = tuple(RegionPrediction(box=item.box) for item in scene.objects[:2])
    return ImageResult("some/scene.png", str(path), 480, 360, regions)


def pages(results, folder, *, anew=(), load=predictor):
    return dict(explain_results(results, folder, predictor=load, questions=ASKED, anew=anew))


def test_every_image_has_a_page_of_its_regions(result, tmp_path):
    assert pages([result], tmp_path / "explain") == {"some/scene.png": None}

    (path,) = (tmp_path / "explain").iterdir()
    assert path.name.startswith("some_scene.png-")
    page = path.read_text(encoding="utf-8")
    assert "<h1><bdi>some/scene.png</bdi></h1>" in page
    assert page.count('<section class="region"') == 2


def test_a_page_that_is_there_stays_and_no_model_is_loaded(result, tmp_path):
    pages([result], tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_text("mine")

    def load():
        raise AssertionError("not needed")

    assert pages([result], tmp_path, load=load) == {"some/scene.png": None}
    assert path.read_text() == "mine"


def test_new_answers_have_new_pages(result, tmp_path):
    pages([result], tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_text("old")

    pages([result], tmp_path, anew={"some/scene.png"})

    assert "some/scene.png" in path.read_text(encoding="utf-8")


def test_an_image_that_has_gone_does_not_stop_the_others(result, tmp_path):
    gone = ImageResult("gone.png", str(tmp_path / "gone.png"), 9, 9, result.regions)

    reasons = pages([gone, result], tmp_path / "explain")

    assert reasons["gone.png"].startswith("cannot be explained: no image")
    assert reasons["some/scene.png"] is None
    assert len(list((tmp_path / "explain").iterdir())) == 1


def test_of_a_crowd_the_first_are_explained_and_the_others_counted(result, tmp_path, monkeypatch):
    monkeypatch.setattr("lavis_dynrefer.cli.predict.predict_explain.MOST_REGIONS", 1)

    pages([result], tmp_path)

    (path,) = tmp_path.iterdir()
    page = path.read_text(encoding="utf-8")
    assert page.count('<section class="region"') == 1
    assert "1 more region is not explained here." in page


def test_the_command_of_the_documentation_writes_a_page(tmp_path, monkeypatch, capsys):
    (line,) = re.findall(r"```bash\n(.*)\n```", DOCS.read_text(encoding="utf-8"))
    render(make_scene(0, 2_000_001)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)

    assert main(shlex.split(line)[1:]) == 0

    page = Path("answers/explain/photo.jpg.html").read_text(encoding="utf-8")
    assert page.count('<section class="region"') == 2
    assert "explain" in capsys.readouterr().out


def test_pages_need_a_folder(result, capsys):
    assert main(["predict", result.path, "--box", "1,1,9,9", "--explain"]) == 2
    assert "--explain needs --output" in capsys.readouterr().err
