"""Logits to probabilities: scale and bias, categories with "none of these", what is familiar."""

from __future__ import annotations

import math

import pytest
import torch

from lavis_dynrefer.models.decoders.contrast import ContrastDecoder
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.models.probabilities.calibration import Calibration
from lavis_dynrefer.models.probabilities.familiarity import Familiarity
from lavis_dynrefer.models.probabilities.text_answers import category_probabilities
from lavis_dynrefer.models.weights.checkpoint import load_weights, to_official
from lavis_dynrefer.models.weights.tensor_reading import CheckpointError

TASKS = ("attributes", "categories")


class Trained:
    """What a calibration reads of a contrast decoder."""

    log_scale = torch.tensor(math.log(10.0))
    bias = torch.tensor(-5.0)


def test_without_a_calibration_the_trained_scale_and_bias_count():
    calibration = Calibration()
    logits = torch.tensor([0.0, 0.5])

    assert calibration.scaled("attributes", logits, Trained).tolist() == pytest.approx([-5, 0])
    assert torch.equal(calibration.scaled("tags", logits), logits)
    assert list(calibration.state_dict()) == []


def test_fitted_values_replace_them_until_they_are_forgotten():
    calibration = Calibration()
    logits = torch.tensor([1.0])
    calibration.fill({"attributes": torch.tensor([2.0, -1.0])})

    assert calibration.scaled("attributes", logits, Trained).tolist() == [1.0]
    calibration.fill({"attributes": torch.tensor([3.0, -1.0])})
    assert calibration.scaled("attributes", logits, Trained).tolist() == [2.0]
    calibration.forget()
    assert calibration.scaled("attributes", logits, Trained).tolist() == pytest.approx([5.0])


@pytest.mark.parametrize("name", ["colours", "familiarity.median", "attributes.scale"])
def test_unknown_values_are_refused(name):
    with pytest.raises(CheckpointError, match=name):
        Calibration().fill({name: torch.zeros(2)})


def test_a_single_category_has_its_sigmoid():
    assert category_probabilities(torch.tensor([[0.3]])).item() == pytest.approx(
        torch.tensor(0.3).sigmoid().item()
    )


def test_categories_are_independent_sigmoids_of_which_at_most_one_is_right():
    logits = torch.tensor([[1.0, -0.5, 0.2]])
    share = logits.sigmoid()[0]
    alone = [share[k] * torch.cat([1 - share[:k], 1 - share[k + 1 :]]).prod() for k in range(3)]
    none = (1 - share).prod()
    wanted = torch.stack(alone) / (sum(alone) + none)

    found = category_probabilities(logits)[0]

    assert found.tolist() == pytest.approx(wanted.tolist())
    assert 1 - float(found.sum()) == pytest.approx(float(none / (sum(alone) + none)))


def line(count: int, seed: int = 0) -> torch.Tensor:
    """Points close to a line in three dimensions."""
    rng = torch.Generator().manual_seed(seed)
    along = torch.randn(count, 1, generator=rng)
    return torch.cat([3 * along, along, along], dim=1) + 0.01 * torch.randn(count, 3, generator=rng)


def fitted() -> Familiarity:
    calibration = Calibration()
    values = Familiarity.fitted(line(400), line(400, seed=1), rank=1)
    calibration.fill({f"familiarity.{name}": value for name, value in values.items()})
    return calibration.familiarity


def test_what_lies_among_the_training_regions_is_familiar():
    familiar = fitted()

    on_the_line, beside_it = familiar(torch.tensor([[0.3, 0.1, 0.1], [0.3, 0.1, 0.5]]))

    assert on_the_line > 0.1
    assert beside_it == 0.0


def test_familiarity_is_the_share_of_held_out_regions_that_are_as_far():
    familiar = fitted()
    found = torch.tensor(familiar(line(2000, seed=2)))

    for share in (0.1, 0.5, 0.9):
        assert float((found < share).float().mean()) == pytest.approx(share, abs=0.06)


def test_an_autocast_of_the_caller_changes_nothing():
    familiar, regions = fitted(), line(200, seed=3)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = familiar(regions)

    assert found == familiar(regions)


def test_without_a_fit_nothing_is_said():
    assert Familiarity()(torch.zeros(2, 3)) is None


def test_distance_is_mahalanobis_with_one_variance_for_the_rest():
    familiar = Familiarity()
    familiar.mean = torch.tensor([1.0, 0.0, 0.0])
    familiar.axes = torch.tensor([[1.0, 0.0, 0.0]])
    familiar.variances = torch.tensor([4.0, 0.25])

    # (2 / 2) ** 2 along the axis, (1 + 4) / 0.25 across it, over three directions
    assert familiar.distance(torch.tensor([[3.0, 1.0, 2.0]])).item() == pytest.approx(21 / 3)


@pytest.fixture
def calibrated(smallest_model) -> DynRefer:
    smallest_model.calibration.fill(
        {"attributes": torch.tensor([2.0, -1.0]), "tags": torch.tensor([4.0, -2.0])}
    )
    return smallest_model


def test_a_calibration_is_part_of_the_state_dict_and_loads_into_another_model(
    calibrated, smallest_config
):
    state = calibrated.state_dict()
    other = DynRefer.from_config(smallest_config)
    halves = {
        name: value.half() if value.is_floating_point() else value for name, value in state.items()
    }
    load_weights(other, halves)

    assert other.calibration.attributes.tolist() == [2.0, -1.0]
    assert other.calibration.attributes.dtype == torch.float32
    assert other.calibration.categories is None


def test_weights_without_a_calibration_end_that_of_the_model(calibrated):
    state = {
        name: value
        for name, value in calibrated.state_dict().items()
        if not name.startswith("calibration.")
    }
    load_weights(calibrated, state)

    assert list(calibrated.calibration.state_dict()) == []


def test_official_names_have_no_calibration(calibrated):
    assert not any("calibration" in name for name in to_official(calibrated.state_dict()))


def test_a_contrast_decoder_has_the_scale_and_bias_that_are_read(calibrated):
    assert isinstance(calibrated.contrast, ContrastDecoder)
    calibrated.calibration.forget()
    found = calibrated.calibration.scaled("categories", torch.zeros(1), calibrated.contrast)

    assert found.item() == pytest.approx(calibrated.contrast.bias.item())


def test_training_ends_a_calibration_and_answering_does_not(calibrated, region_batch):
    with torch.no_grad():
        calibrated(region_batch)
    assert calibrated.calibration.attributes is not None

    calibrated(region_batch)
    assert calibrated.calibration.attributes is None


def test_answers_have_probabilities_and_the_scores_do_not_change(smallest_model, region_batch):
    asked = {"attributes": ["red", "wet"], "categories": ["mug", "car"], "tasks": TASKS}
    (before, *_) = smallest_model.predict(region_batch, **asked)
    smallest_model.calibration.fill(
        {"attributes": torch.tensor([2.0, -1.0]), "categories": torch.tensor([3.0, 0.5])}
    )
    (after, *_) = smallest_model.predict(region_batch, **asked)

    assert (after.attributes, after.categories) == (before.attributes, before.categories)
    for attribute in after.attributes:
        logit = math.log(attribute.score / (1 - attribute.score))
        assert attribute.probability == pytest.approx(1 / (1 + math.exp(1 - 2 * logit)), abs=1e-5)
    odds = [math.exp(3 * category.score + 0.5) for category in after.categories]
    assert [category.probability for category in after.categories] == pytest.approx(
        [one / (1 + sum(odds)) for one in odds], abs=1e-5
    )
    assert after.none_of_these == pytest.approx(1 / (1 + sum(odds)), abs=1e-5)
    assert after.familiarity is None
