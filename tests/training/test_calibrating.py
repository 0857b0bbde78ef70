"""Calibration: what the fit finds, which splits it takes, where its values are kept."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.probabilities.text_answers import category_probabilities
from lavis_dynrefer.structures import RegionRecord, RegionSet
from lavis_dynrefer.training.calibrating.calibration_run import (
    choose_familiar,
    choose_sources,
    measure,
    store,
    write_report,
)
from lavis_dynrefer.training.calibrating.labelled_logits import (
    LabelledLogits,
    _tag_labels,
    labelled_kinds,
)
from lavis_dynrefer.training.calibrating.scale_fitting import (
    fit_categories,
    fit_scale_and_bias,
    random_halves,
)

BOX = (0.0, 0.0, 9.0, 9.0)


def draw(probabilities: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return torch.bernoulli(probabilities, generator=torch.Generator().manual_seed(seed)).long()


@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (40.0, -14.0), (0.05, 2.0)])
def test_the_scale_and_bias_of_the_labels_are_found(scale, bias):
    logits = torch.linspace(-3, 3, 4000) / scale - bias / scale
    labels = draw((scale * logits + bias).sigmoid())

    found = fit_scale_and_bias(logits, labels)

    assert found[0] == pytest.approx(scale, rel=0.1)
    assert found[1] == pytest.approx(bias, abs=0.1 + 0.1 * abs(bias))


def test_labels_that_the_logits_separate_have_a_finite_scale():
    logits = torch.tensor([-1.0, -1.0, 1.0, 1.0])

    scale, bias = fit_scale_and_bias(logits, torch.tensor([0, 0, 1, 1]))

    # Platt's targets are 1/4 and 3/4
    assert float(torch.tensor(scale + bias).sigmoid()) == pytest.approx(0.75, abs=1e-3)
    assert float(torch.tensor(bias - scale).sigmoid()) == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize("labels", [[0, 0], [1, 1]])
def test_labels_of_one_kind_are_refused(labels):
    with pytest.raises(InputError, match="both kinds"):
        fit_scale_and_bias(torch.tensor([0.0, 1.0]), torch.tensor(labels))


def test_categories_and_none_of_them_become_probable():
    rng = torch.Generator().manual_seed(1)
    own = torch.randint(6, (3000,), generator=rng)
    logits = 0.05 * torch.randn(3000, 6, generator=rng)
    logits[torch.arange(3000), own] += 0.12

    scale, bias = fit_categories(logits, own)
    calibrated = scale * logits + bias
    asked, right = random_halves(logits, own, seed=7)
    some = category_probabilities(calibrated.masked_fill(~asked, -1e4))
    none = 2 - some.sum(dim=1) - category_probabilities(calibrated).sum(dim=1)

    assert measure("categories", calibrated, own)["error"] < 0.1
    # With all names and with halves of them together, as they were fitted.
    assert float(none.mean()) == pytest.approx(float((right == 6).float().mean()), abs=0.03)


def test_halves_hold_at_least_one_name_and_say_whether_the_right_one_is_there():
    own = torch.tensor([0, 1, 2, 0] * 50)
    asked, right = random_halves(torch.zeros(200, 3), own, seed=0)

    assert asked.any(dim=1).all()
    for row in range(200):
        assert right[row] == (own[row] if asked[row, own[row]] else 3)


def test_a_single_name_cannot_be_calibrated():
    with pytest.raises(InputError, match="two names"):
        fit_categories(torch.zeros(4, 1), torch.zeros(4, dtype=torch.long))


def test_measured_by_hand():
    # sigmoid(0) = .5: both are taken for yes, one is right, one label is unknown
    found = measure("attributes", torch.zeros(1, 3), torch.tensor([[1, 0, -1]]))

    assert found["curve"] == [[0.5, 0.5, 2]]
    assert (found["error"], found["precision"], found["recall"]) == (0.0, 0.5, 1.0)


def test_halves_of_a_split_share_no_image():
    answers = LabelledLogits(
        torch.arange(4)[:, None], torch.zeros(4, 1), torch.tensor([0, 0, 1, 2])
    )

    assert answers.half(0).logits.flatten().tolist() == [0, 1, 3]
    assert answers.half(1).logits.flatten().tolist() == [2]


def split(**truth) -> SimpleNamespace:
    region = RegionRecord(1, 1, BOX, **truth)
    return SimpleNamespace(region_set=RegionSet("x", "x", {}, [region], (), (), ("dog", "cat")))


def test_kinds_are_those_that_have_labels():
    assert labelled_kinds(split(attributes=(0, 1)).region_set) == ["attributes"]
    assert labelled_kinds(split(attributes=(0, -1), category="dog").region_set) == ["categories"]
    assert labelled_kinds(split(caption="a dog").region_set) == ["tags"]


def test_validation_splits_come_before_others_and_test_splits_last():
    datasets = {
        "one": {"train": split(caption="x"), "test": split(caption="x", category="dog")},
        "two": {"val": split(caption="x"), "extra": split(category="dog")},
    }
    chosen = choose_sources(datasets, test=["test"])

    assert {kind: source.split for kind, source in chosen.items()} == {
        "tags": "val",
        "categories": "extra",
    }
    assert choose_sources(datasets, validation=["test"])["tags"].split == "test"
    only = choose_sources(datasets, test=["test"], splits=["test"])
    assert all(source.is_test for source in only.values())


def test_splits_of_one_name_in_two_datasets_are_all_looked_at():
    datasets = {
        "ovad": {"val": split(attributes=(0, 1))},
        "vg": {"val": split(caption="x"), "train": split(caption="x")},
    }
    chosen = choose_sources(datasets, splits=["val"])

    assert {kind: source.name for kind, source in chosen.items()} == {
        "attributes": "ovad",
        "tags": "vg",
    }


def test_what_is_familiar_is_held_out_of_each_dataset_that_is_trained_on(caplog):
    datasets = {
        "one": {"train": split(), "test": split(), "val": split()},
        "two": {"train": split(), "extra": split()},
        "three": {"val": split()},
        "four": {"train": split()},
    }

    assert choose_familiar(datasets, test=["test"]) == [
        (datasets["one"]["train"], datasets["one"]["val"]),
        (datasets["two"]["train"], datasets["two"]["extra"]),
    ]
    assert "four has only a training split" in caplog.text


def test_regions_without_caption_or_tags_say_nothing_about_tags():
    def tagger(caption):
        return caption.split()

    rows = [{"caption": "a dog"}, {"tags": ("cat",)}, {"caption": ""}]
    found = [_tag_labels(RegionRecord(1, 1, BOX, **row), ["dog", "cat"], tagger) for row in rows]

    assert found == [[1, 0], [0, 1], [-1, -1]]
    labels = LabelledLogits(torch.zeros(3, 2), torch.tensor(found), torch.arange(3))
    assert (labels.known, labels.half(1).known) == (2, 1)


def test_without_a_probable_answer_precision_is_not_a_number_of_json():
    found = measure("tags", torch.full((3, 1), -5.0), torch.tensor([[1], [0], [0]]))

    assert (found["precision"], found["recall"]) == (None, 0.0)


def test_unknown_splits_and_splits_without_labels_are_refused():
    datasets = {"one": {"val": split(), "train": split(caption="x")}}
    with pytest.raises(InputError, match="no split 'vall'"):
        choose_sources(datasets, splits=["vall"])
    with pytest.raises(InputError, match="none of the splits"):
        choose_sources(datasets)


VALUES = {"calibration.tags": torch.tensor([2.0, -1.0])}
OLD = {"calibration.attributes": torch.zeros(2), "weight": torch.ones(3)}


def test_values_replace_those_of_a_safetensors_file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(OLD, path)
    store(path, path, VALUES)

    assert load_file(path).keys() == {"weight", "calibration.tags"}


@pytest.mark.parametrize("wrapped", [True, False])
def test_values_replace_those_of_a_checkpoint_and_the_rest_stays(tmp_path, wrapped):
    path = tmp_path / "checkpoint_last.pth"
    torch.save({"model": OLD, "epoch": 3} if wrapped else OLD, path)
    store(path, path, VALUES)
    content = torch.load(path, weights_only=True)

    assert (content["model"] if wrapped else content).keys() == {"weight", "calibration.tags"}
    assert not wrapped or content["epoch"] == 3


def test_the_report_is_json_beside_the_checkpoint(tmp_path):
    path = write_report(tmp_path, {"kinds": {}})

    assert json.loads(path.read_text(encoding="utf-8")) == {"kinds": {}}
