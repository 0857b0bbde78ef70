"""The same images by API, command line and HTTP."""

from __future__ import annotations

import json

import pytest

from lavis_dynrefer.cli import main
from lavis_dynrefer.formats import read_results
from lavis_dynrefer.structures import RegionPrediction
from lavis_dynrefer.synthetic import make_scene, render

IMAGES = 10
REGIONS = 2  # per image
QUESTION = {
    "attributes": ["wet", "striped", "color:red/crimson"],
    "categories": ["flower", "tree", "boat", "house"],
    "controls": ["small"],
}
TOLERANCE = 1e-5  # tables print 2 digits; in batches of another size the seventh differs
# A calibrated logit is some forty times the score that it comes from.
COARSE = {"probabilities": 1e-3, "none_of_these": 1e-3, "familiarity": 1e-3}


@pytest.fixture(scope="module")
def scenes():
    """Name of an image -> the image and its boxes."""
    made = [make_scene(3, 2_000_101 + number) for number in range(IMAGES)]
    return {
        f"{number:02}.png": (render(scene), [list(item.box) for item in scene.objects[:REGIONS]])
        for number, scene in enumerate(made)
    }


@pytest.fixture(scope="module")
def by_api(scenes, predictor):
    return {name: predictor.predict(*scene, **QUESTION) for name, scene in scenes.items()}


def by_http(scenes, client, folder):
    del folder
    replies = {name: client.regions(*scene, **QUESTION) for name, scene in scenes.items()}
    return {
        name: [RegionPrediction.from_dict(row) for row in reply.json["regions"]]
        for name, reply in replies.items()
    }


def by_command(scenes, client, folder):
    del client
    for name, (image, _) in scenes.items():
        image.save(folder / name)
    boxes = folder / "boxes.json"
    boxes.write_text(
        json.dumps({name: rows for name, (_, rows) in scenes.items()}), encoding="utf-8"
    )
    words = [f"--{name}={','.join(given)}" for name, given in QUESTION.items()]
    files = ["--boxes", str(boxes), "--output", str(folder / "out")]
    assert main(["predict", str(folder), *files, *words, "--device", "cpu"]) == 0
    return {row.image: row.regions for row in read_results(folder / "out" / "results.jsonl")}


def numbers_and_words(answers):
    """Every field of every answer by its place: the numbers, and all else."""
    fields = {}
    for image, regions in answers.items():
        for row, region in enumerate(regions):
            for name, value in region.to_dict().items():
                if name in ("tags", "attributes", "categories"):
                    fields.update({(image, row, name, word): score for word, score in value})
                elif name == "probabilities":
                    fields.update(
                        {
                            (image, row, name, kind, word): share
                            for kind, shares in value.items()
                            for word, share in shares.items()
                        }
                    )
                else:
                    fields[image, row, name] = value
    numbers = {place: value for place, value in fields.items() if isinstance(value, float)}
    return numbers, {place: value for place, value in fields.items() if place not in numbers}


@pytest.mark.parametrize("door", [by_http, by_command])
def test_answers_equal_those_of_the_api(scenes, client, by_api, tmp_path, door):
    numbers, words = numbers_and_words(door(scenes, client, tmp_path))
    right_numbers, right_words = numbers_and_words(by_api)
    assert words == right_words
    assert numbers.keys() == right_numbers.keys()
    for place, value in numbers.items():
        within = COARSE.get(place[2], TOLERANCE)
        assert value == pytest.approx(right_numbers[place], abs=within), place
    assert sum(place[-1] == "caption" for place in words) == IMAGES * REGIONS
