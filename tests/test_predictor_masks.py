"""Masks of regions: what they are used as, and by which calls."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.explain import explain
from lavis_dynrefer.images.mask_encoding import encode_mask
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.questions import Questions
from lavis_dynrefer.synthetic import make_scene, render
from lavis_dynrefer.views.regions import Regions
from lavis_dynrefer.views.samples import concat_samples

BOXES = [[100.0, 40.0, 180.0, 90.0], [20.0, 200.0, 120.0, 300.0]]
TASKS = ("attributes", "categories")


@pytest.fixture(scope="module")
def scene():
    made = make_scene(0, 2_000_001)
    return render(made), [item.box for item in made.objects]


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """The embedded model as one that is trained with masks."""
    file = tmp_path_factory.mktemp("model") / "cells.yaml"
    text = "model: {arch: dynrefer, model_type: tiny, region: {masks: cells}}\n"
    file.write_text(text, encoding="utf-8")
    return str(file)


@pytest.fixture(scope="module")
def predictor(model_file):
    return RegionPredictor(model_file, device="cpu")


@pytest.fixture
def half(scene):
    """The left half of the first box."""
    mask = np.zeros((scene[0].height, scene[0].width), dtype=bool)
    mask[40:90, 100:140] = True
    return mask


def scores(answers):
    return [dict(answer.attributes) | dict(answer.categories) for answer in answers]


def asked(predictor, image, boxes, masks, **options):
    return scores(predictor.predict(image, boxes, masks=masks, tasks=TASKS, **options))


def test_a_mask_beside_a_box_changes_the_answer_and_not_the_box(predictor, scene, half):
    answers = predictor.predict(scene[0], BOXES, masks=[half, None], tasks=TASKS)
    plain = predictor.predict(scene[0], BOXES, tasks=TASKS)

    assert [list(answer.box) for answer in answers] == BOXES
    assert scores(answers)[0] != scores(plain)[0]
    assert scores(answers)[1] == pytest.approx(scores(plain)[1], abs=1e-5)


def test_masks_without_boxes_have_their_tight_boxes(predictor, scene, half):
    (answer,) = predictor.predict(scene[0], masks=[half], tasks=TASKS)
    (box,) = predictor.predict(scene[0], [[100, 40, 140, 90]], tasks=TASKS)

    assert answer == box  # a mask that fills its box


def test_masks_are_used_as_what_is_asked(predictor, scene, half):
    image, box = scene[0], BOXES[:1]
    plain = asked(predictor, image, box, None)
    uses = {use: asked(predictor, image, box, [half], masks_as=use) for use in ("cells", "dim")}

    assert asked(predictor, image, box, [half], masks_as="box") == plain
    assert uses["cells"] != plain
    assert uses["dim"] not in (plain, uses["cells"])
    # What it was trained for: cells, with the own view dimmed.
    assert asked(predictor, image, box, [half]) not in (plain, *uses.values())


def test_every_form_of_a_mask_is_the_same_mask(predictor, scene, half):
    image, box = scene[0], BOXES[:1]
    forms = [half, encode_mask(half), [[100, 40, 140, 40, 140, 90, 100, 90]], torch.tensor(half)]

    found = [asked(predictor, image, box, [form]) for form in forms]

    assert found == [found[0]] * 4


@pytest.mark.parametrize("use", ["cells", "dim"])
def test_all_calls_take_masks(predictor, scene, half, use):
    image = scene[0]
    masks = [half, None]
    expected = asked(predictor, image, BOXES, masks, masks_as=use)
    near = [pytest.approx(row, abs=1e-4) for row in expected]
    plain = asked(predictor, image, BOXES, None)

    pairs = [(image, BOXES, masks), (image, BOXES)]
    first, second = predictor.predict_batch(pairs, tasks=TASKS, masks_as=use)
    assert scores(first) == near
    assert scores(second) == [pytest.approx(row, abs=1e-4) for row in plain]

    encoded = predictor.encode(image, BOXES, masks=masks, masks_as=use)
    assert scores(predictor.answer(encoded, tasks=TASKS)) == near
    assert scores(predictor.answer(encoded, tasks=TASKS, masks_as=use)) == near
    with pytest.raises(InputError, match=f"encoded with '{use}', got 'box'; encode them again"):
        predictor.answer(encoded, tasks=TASKS, masks_as="box")
    assert scores(one.prediction for one in explain(predictor, encoded, tasks=TASKS)) == near

    samples = predictor.crop(*predictor.read(image, BOXES, masks=masks), masks_as=use)
    questions = predictor.check(Questions(tasks=TASKS, masks_as=use))
    assert scores(predictor.answer_samples(samples, questions)) == near


def test_chunks_keep_masks_with_their_regions(model_file, scene, half):
    image = scene[0]
    boxes, masks = [BOXES[1], BOXES[0], BOXES[1]] * 7, [None, half, None] * 7  # over a reader's 16
    one_by_one = RegionPredictor(model_file, device="cpu", chunk=4)

    found = asked(one_by_one, image, boxes, masks)

    expected = asked(one_by_one, image, BOXES, [half, None])
    for row in (1, 4, 19):
        assert found[row] == pytest.approx(expected[0], abs=1e-4)
        assert found[row - 1] == pytest.approx(expected[1], abs=1e-4)


def test_the_model_itself_takes_masks_of_samples(predictor, scene, half, monkeypatch):
    model, processor = predictor.model, predictor.processor
    of_default = asked(predictor, scene[0], BOXES[:1], [half])
    assert scores(model.predict(processor(scene[0], BOXES[:1], masks=[half]))) == of_default

    monkeypatch.setattr(processor, "mask_views", "none")
    sample = processor(scene[0], BOXES[:1], masks=[half])
    for use, masks in (("cells", [half]), ("box", None)):
        found = scores(model.predict(sample, tasks=TASKS, masks_as=use))
        assert found == asked(predictor, scene[0], BOXES[:1], masks, masks_as=use)


@pytest.mark.parametrize(
    ("views", "uses"),
    [("none", ["dim"]), ("dim", ["box", "cells"]), ("dim_own", ["box", "cells", "dim"])],
)
def test_samples_whose_views_do_not_fit_a_use_are_refused(
    predictor, scene, half, monkeypatch, views, uses
):
    monkeypatch.setattr(predictor.processor, "mask_views", views)
    some = [predictor.processor(scene[0], BOXES[:1], masks=masks) for masks in ([half], [None])]

    for use in ("box", "cells", "dim"):
        model, sample = predictor.model, concat_samples(some)
        if use in uses:
            with pytest.raises(InputError, match=f"masks_as: '{use}': .* crop them again with"):
                model.predict(sample, masks_as=use)
        else:
            assert len(model.predict(sample, masks_as=use)) == 2
        model.predict(some[1], masks_as=use)  # has no mask


def test_a_use_that_the_model_was_not_trained_for_is_said_once(model_file, scene, half, caplog):
    fresh = RegionPredictor(model_file, device="cpu")
    with caplog.at_level(logging.WARNING):
        asked(fresh, scene[0], BOXES[:1], [half])
        assert not caplog.records
        for use in ("cells", "dim", "dim", "box"):
            asked(fresh, scene[0], BOXES[:1], [half], masks_as=use)

    assert [record.getMessage() for record in caplog.records] == [
        f"masks_as='{use}': this model was not trained with masks used like this, so its answers "
        "may be worse than with boxes"
        for use in ("cells", "dim")
    ]


def test_a_model_of_boxes_takes_masks_for_their_boxes(predictor, scene, half, monkeypatch):
    monkeypatch.setattr(predictor.model.region_encoder, "masks", "ignore")
    monkeypatch.setattr(predictor.processor, "mask_cells", False)
    monkeypatch.setattr(predictor.processor, "mask_views", "none")
    image, box = scene[0], BOXES[:1]

    assert asked(predictor, image, box, [half]) == asked(predictor, image, box, None)
    sample = {**predictor.processor(image, box), "masks": torch.zeros(1, 28, 28)}
    assert scores(predictor.model.predict(sample, tasks=TASKS)) == asked(
        predictor, image, box, None
    )


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ({"boxes": BOXES, "masks": [[[100, 40, 140, 40, 140, 90]]]}, "for each of 2 boxes, got 1"),
        ({"boxes": BOXES[:1], "masks": [[[0, 0, 9, 0, 9, 9]]]}, "row 0: no part of the mask"),
        ({"masks": [None]}, "row 0 is None; regions without a mask need boxes"),
        ({"boxes": BOXES[:1], "masks_as": "blur"}, "masks_as: expected one of"),
        ({"boxes": BOXES[:1], "masks_as": ["box"]}, "masks_as: expected one of"),
    ],
)
def test_masks_that_are_unclear_are_refused(predictor, scene, regions, message):
    with pytest.raises(InputError, match=message):
        predictor.predict(scene[0], **regions)


def test_regions_are_sliced_with_their_masks():
    regions = Regions(torch.tensor(BOXES), ["a", None])

    assert len(regions) == 2
    assert regions[1:].boxes.tolist() == BOXES[1:]
    assert regions[:1].masks == ["a"]
    assert Regions(torch.tensor(BOXES))[:1].masks is None
