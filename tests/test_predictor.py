"""RegionPredictor and LAVIS's loader with the embedded model."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from lavis.models import load_model_and_preprocess

from lavis_dynrefer import RegionPredictor
from lavis_dynrefer.config import GenerationConfig
from lavis_dynrefer.synthetic import make_scene, render
from lavis_dynrefer.views.policies import FixedScales
from lavis_dynrefer.views.reading_ahead import READERS


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


def test_words_may_come_as_any_iterable(predictor, scene):
    image, boxes = scene
    expected = predictor.predict(image, boxes[:1], categories=["cup", "bell"])
    for words in (iter(["cup", "bell"]), np.array(["cup", "bell"]), {"cup": 1, "bell": 2}):
        assert predictor.predict(image, boxes[:1], categories=words) == expected


def test_paths_and_arrays_are_images_too(predictor, scene, tmp_path):
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


def test_tags_are_arguments_and_steer_the_caption(predictor, scene, monkeypatch):
    image, boxes = scene
    model = predictor.model
    steered = replace(model.caption_config, steer_by_tags=True)
    monkeypatch.setattr(model, "caption_config", steered)  # which the embedded model does not want
    kept = model.tagging.tags
    full = predictor.predict(image, boxes)
    asked = sorted({tag for answer in full for tag, _ in answer.tags})[:5]

    found = predictor.predict(image, boxes, tags=asked)

    for_these = [[pair for pair in answer.tags if pair[0] in asked] for answer in full]
    assert [[name for name, _ in answer.tags] for answer in found] == [
        [name for name, _ in pairs] for pairs in for_these
    ]
    words = [[name for name, _ in pairs] for pairs in for_these]
    assert [answer.caption for answer in found] == [
        predictor.predict(image, [box], tags=[], controls=steering)[0].caption
        for box, steering in zip(boxes, words)
    ]
    assert model.tagging.tags == kept


def test_tags_steer_only_where_the_model_wants_them(predictor, scene):
    image, boxes = scene
    without = predictor.predict(image, boxes, tags=[])
    found = predictor.predict(image, boxes)
    assert any(answer.tags for answer in found)
    assert [one.caption for one in found] == [one.caption for one in without]


def test_without_tags_to_choose_from_there_are_none(predictor, scene):
    answers = predictor.predict(scene[0], scene[1][:2], tags=[])

    assert [answer.tags for answer in answers] == [(), ()]


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ({"views": "best"}, "views: expected one of"),
        ({"tasks": ["ocr"]}, r"tasks: expected some of .* got \['ocr'\]"),
        ({"atributes": ["red"]}, "unknown question 'atributes'; did you mean attributes?"),
        ({"format": "yolo"}, "format: expected one of"),
        ({"tags": "red"}, "tags: expected a list of words, got 'red'"),
        ({"attributes": "red"}, "attributes: expected a list of words, got 'red'"),
        ({"attributes": ["a/"]}, "attribute 'a/': expected a word"),
        ({"categories": ["dog", 7]}, "categories: expected words, got 7"),
        ({"controls": [None]}, "controls: expected words, got None"),
        ({"controls": None}, "controls: expected a list of words, got None"),
        ({"tags": 5}, "tags: expected a list of words, got 5"),
        ({"categories": ["cup", "cup"]}, r"categories: \['cup'\] occur more than once"),
        ({"generation": {"num_beam": 2}}, "unknown .'num_beam'.; did you mean num_beams"),
        ({"views": FixedScales([0, 0.2, 0.5])}, "the model fuses 2 views, got 3"),
    ],
)
def test_wrong_questions_are_refused_before_an_image_is_asked_for(predictor, questions, message):
    def images():
        raise AssertionError("an image was asked for")
        yield

    with pytest.raises(ValueError, match=message):
        predictor.predict_iter(images(), **questions)


@pytest.mark.parametrize("task", ["attributes", "categories"])
def test_questions_asked_together_are_answered_as_if_asked_alone(predictor, scene, task):
    together = predictor.predict(*scene)
    alone = predictor.predict(*scene, tasks=[task])

    found, expected = (
        [dict(getattr(one, task)) for one in answers] for answers in (together, alone)
    )
    assert [list(scores) for scores in found] == [list(scores) for scores in expected]
    assert found[0] == pytest.approx(expected[0], abs=1e-5)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        ("nowhere.jpg", FileNotFoundError, "no image nowhere.jpg"),
        (np.zeros((4, 4)), ValueError, r"expected an array \(h, w, 3\) or"),
    ],
)
def test_wrong_images_are_named(predictor, image, error, message):
    with pytest.raises(error, match=message):
        predictor.predict(image, [[0, 0, 2, 2]])


def test_html_in_place_of_an_image_is_named(predictor, tmp_path):
    (tmp_path / "page.jpg").write_text("<html>404</html>", encoding="utf-8")
    with pytest.raises(ValueError, match=r"cannot read image .*page\.jpg"):
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


def test_a_cut_off_image_is_named(predictor, scene, tmp_path):
    scene[0].save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"cannot read image .*cut\.jpg"):
        predictor.predict(tmp_path / "cut.jpg", scene[1])


def test_a_mask_is_asked_about_as_its_tight_box(predictor, scene):
    image, _ = scene
    mask = np.zeros((image.height, image.width), dtype=bool)
    mask[40:90, 100:180] = True

    (answer,) = predictor.predict(image, masks=[mask])

    assert answer == predictor.predict(image, [[100, 40, 180, 90]])[0]


def test_boxes_in_another_form_are_the_same_boxes(predictor, scene):
    image, _ = scene
    shares = [[100 / image.width, 40 / image.height, 180 / image.width, 90 / image.height]]
    expected = predictor.predict(image, [[100, 40, 180, 90]])[0].caption

    assert predictor.predict(image, [[100, 40, 80, 50]], format="xywh")[0].caption == expected
    assert predictor.predict(image, shares, normalised=True)[0].caption == expected


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ({}, "expected either boxes or masks or points"),
        ({"points": [[1, 1]]}, "points need sam, a folder of SAM's weights"),
        ({"boxes": [[0, 0, 9, 9]], "sam": "sam"}, "and sam needs points"),
        ({"points": [[1, 1]], "sam": "sam", "format": "xywh"}, "leave them out with masks and"),
        ({"boxes": [[0, 0, 9, 9]], "masks": []}, "expected one for each of 1 boxes, got 0"),
        ({"boxes": [[0, 0, 9, 9]], "points": [[1, 1]], "sam": "sam"}, "expected either boxes or"),
        ({"masks": [[[1, 1, 9, 1, 9, 9]]], "format": "xywh"}, "leave them out with masks"),
        ({"boxes": [[0.1, 0.1, 0.5, 0.5]]}, "pass normalised=True"),
    ],
)
def test_regions_that_are_unclear_are_refused(predictor, scene, regions, message):
    with pytest.raises(ValueError, match=message):
        predictor.predict(scene[0], **regions)


def test_images_are_read_a_few_ahead_of_their_answers(scene):
    image, boxes = scene
    predictor = RegionPredictor("tiny", device="cpu", chunk=3)
    read = []

    def pairs():
        for number in range(40):
            read.append(number)
            yield image, boxes[:2]

    answers = predictor.predict_iter(pairs(), tasks=["categories"])
    first = next(answers)

    assert len(first) == 2
    assert len(read) <= 2 + 2 * READERS + 1  # two images fill a chunk
    assert [len(rest) for rest in answers] == [2] * 39


def test_views_are_cropped_by_other_threads_than_the_one_of_the_model(predictor, scene):
    image, boxes = scene
    seen = set()

    class Watching(FixedScales):
        def plan(self, given, boxes):
            if given is image:  # and not a blank, to count the views
                seen.add(threading.get_ident())
            return super().plan(given, boxes)

    predictor.predict_batch([(image, boxes)] * 3, views=Watching([0, 0.5]), tasks=["categories"])

    assert seen
    assert threading.get_ident() not in seen


def test_images_before_an_invalid_one_are_answered(predictor, scene):
    image, boxes = scene
    pairs = [(image, boxes[:2]), (image, boxes[:1]), (image, [[9, 9, 1, 1]]), (image, boxes)]
    answers = predictor.predict_iter(pairs, tasks=["categories"])

    assert [len(next(answers)), len(next(answers))] == [2, 1]
    with pytest.raises(ValueError, match="box"):
        next(answers)


def test_reader_threads_end_with_the_iterator(predictor, scene):
    before = set(threading.enumerate())
    answers = predictor.predict_iter([scene] * 50, tasks=["categories"])
    next(answers)
    assert set(threading.enumerate()) - before
    answers.close()

    assert set(threading.enumerate()) <= before


def test_a_full_chunk_does_not_wait_for_the_next_image(scene):
    image, boxes = scene
    predictor = RegionPredictor("tiny", device="cpu", chunk=3)
    asked = []

    def pairs():
        for number in range(40):
            asked.append(number)
            yield image, boxes[:3]

    next(predictor.predict_iter(pairs(), tasks=["categories"]))

    assert len(asked) == 2 * READERS + 1


def test_one_encoding_answers_many_questions(predictor, scene, monkeypatch):
    image, boxes = scene
    encoded = predictor.encode(image, boxes)
    assert not any(each.maps.is_inference() for each in encoded.features)
    expected = [
        predictor.predict(image, boxes),
        predictor.predict(image, boxes, attributes=["wet"], tasks=["attributes"]),
    ]
    monkeypatch.setattr(predictor.model, "encode_views", None)  # nothing is encoded again

    assert len(encoded) == len(boxes)
    assert predictor.answer(encoded) == expected[0]
    assert predictor.answer(encoded, attributes=["wet"], tasks=["attributes"]) == expected[1]


def test_more_boxes_than_are_encoded_at_once_keep_their_order(predictor, scene):
    image, boxes = scene
    small = RegionPredictor("tiny", device="cpu", chunk=2)

    found, expected = small.predict(image, boxes), predictor.predict(image, boxes)

    assert [one.caption for one in found] == [one.caption for one in expected]
    assert [one.box for one in found] == [one.box for one in expected]


def test_threads_share_a_predictor(predictor, scene):
    image, boxes = scene
    expected = [one.caption for one in predictor.predict(image, boxes)]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda box: predictor.predict(image, [box])[0].caption, boxes))

    assert found == expected


def test_a_yaml_is_laid_over_that_of_its_type(predictor, scene, tmp_path):
    own = tmp_path / "own.yaml"
    text = "model: {model_type: tiny, captioning: {generation: {num_beams: 1, max_new_tokens: 2}}}"
    own.write_text(text, encoding="utf-8")
    short = GenerationConfig(num_beams=1, max_new_tokens=2, repetition_penalty=1.0)

    answers = RegionPredictor(str(own), device="cpu").predict(*scene)

    assert answers == predictor.predict(*scene, generation=short)
    assert answers != predictor.predict(*scene)


def test_bfloat16_answers_nearly_the_same_and_ties_no_scores(predictor, scene):
    expected = predictor.predict(*scene)

    answers = RegionPredictor("tiny", device="cpu", dtype="bfloat16").predict(*scene)

    for one, other in zip(answers, expected):
        for task, tolerance in (("attributes", 0.01), ("categories", 0.05)):
            scores, exact = dict(getattr(one, task)), dict(getattr(other, task))
            assert scores == pytest.approx(exact, abs=tolerance)
            assert scores != exact
            assert len(set(scores.values())) == len(scores)
        assert one.caption_score == pytest.approx(other.caption_score, abs=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16", "device": "cpu"}, "dtype: float16 needs a CUDA device, got cpu"),
        ({"device": "gpu"}, "device: expected auto, cpu, cuda, .* got 'gpu'"),
        ({"chunk": 0}, "chunk: expected at least 1 region, got 0"),
    ],
)
def test_an_unknown_device_or_type_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        RegionPredictor("tiny", **options)
