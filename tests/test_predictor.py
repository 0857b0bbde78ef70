"""RegionPredictor and LAVIS's loader with the embedded model."""

from __future__ import annotations

import numpy as np
import pytest
from lavis.models import load_model_and_preprocess

from lavis_dynrefer import RegionPredictor
from lavis_dynrefer.synthetic import make_scene, render
from lavis_dynrefer.views.policies import FixedScales


@pytest.fixture(scope="module")
def scene():
    made = make_scene(0, 2_000_001)
    return render(made), [item.box for item in made.objects]


@pytest.fixture(scope="module")
def predictor():
    return RegionPredictor("tiny", device="cpu")


def test_load_model_and_preprocess_needs_no_model_type(scene):
    model, vis_processors, _ = load_model_and_preprocess("dynrefer", is_eval=True)
    answers = model.predict(vis_processors["eval"](scene[0], scene[1][:2]))
    assert len(answers) == 2
    assert all(answer.caption for answer in answers)
    assert len(answers[0].categories) == 18


def test_one_answer_per_box_in_order(predictor, scene):
    answers = predictor.predict(*scene)
    assert [answer.box for answer in answers] == [pytest.approx(box) for box in scene[1]]


def test_a_batch_answers_as_single_calls_do(predictor, scene):
    image, boxes = scene
    batch = predictor.predict_batch([(image, boxes[:3]), (image, []), (image, boxes[3:4])])
    assert [len(answers) for answers in batch] == [3, 0, 1]
    single = predictor.predict(image, boxes[3:4])[0]
    assert batch[2][0].caption == single.caption
    assert dict(batch[2][0].categories) == pytest.approx(dict(single.categories), abs=1e-4)


def test_paths_and_arrays_are_pictures_too(predictor, scene, tmp_path):
    image, boxes = scene
    image.save(tmp_path / "scene.png")
    expected = predictor.predict(image, boxes[:1])[0].caption
    assert predictor.predict(tmp_path / "scene.png", boxes[:1])[0].caption == expected
    assert predictor.predict(np.asarray(image), np.array(boxes[:1]))[0].caption == expected


def test_questions_are_arguments(predictor, scene):
    image, boxes = scene
    (answer,) = predictor.predict(
        image, boxes[:1], attributes=["wet", "dry"], tasks=["attributes"], views=FixedScales([0, 1])
    )
    assert {name for name, _ in answer.attributes} == {"wet", "dry"}
    assert answer.caption is None
    assert answer.scales == {"attributes": (0.0, 1.0)}


@pytest.mark.parametrize(
    ("picture", "error", "message"),
    [
        ("nowhere.jpg", FileNotFoundError, "no picture nowhere.jpg"),
        (np.zeros((4, 4)), ValueError, r"expected an array \(h, w, 3\) of uint8"),
    ],
)
def test_wrong_pictures_are_named(predictor, picture, error, message):
    with pytest.raises(error, match=message):
        predictor.predict(picture, [[0, 0, 2, 2]])


def test_html_in_place_of_a_picture_is_named(predictor, tmp_path):
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    with pytest.raises(ValueError, match=r"cannot read picture .*page\.jpg"):
        predictor.predict(tmp_path / "page.jpg", [[0, 0, 2, 2]])


def test_the_embedded_model_names_most_things_of_scenes_it_never_saw(predictor):
    # numbers in assets/tiny/README.md; ten scenes leave room for chance
    scenes = [make_scene(7, 3_000_001 + number) for number in range(10)]
    right = [
        answer.categories[0][0] == item.look.category
        for made in scenes
        for item, answer in zip(
            made.objects,
            predictor.predict(
                render(made), [item.box for item in made.objects], tasks=["categories"]
            ),
        )
    ]
    assert sum(right) / len(right) > 0.75


def test_a_string_of_controls_is_refused(predictor, scene):
    with pytest.raises(ValueError, match="expected a list of words"):
        predictor.predict(*scene, controls="red")


def test_a_cut_off_picture_is_named(predictor, scene, tmp_path):
    scene[0].save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"cannot read picture .*cut\.jpg"):
        predictor.predict(tmp_path / "cut.jpg", scene[1])
