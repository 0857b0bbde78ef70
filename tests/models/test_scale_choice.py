"""Views that the model chooses, and the head that does."""

from __future__ import annotations

import copy

import pytest
import torch
from PIL import Image

from lavis_dynrefer.models.choosing.prior_training import prior_losses
from lavis_dynrefer.models.choosing.scale_choice import SeenViews, usable_policies
from lavis_dynrefer.models.choosing.scale_prior import box_numbers
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.questions import TASKS
from lavis_dynrefer.views.model_priors import ConfidencePrior, LearnedPrior
from lavis_dynrefer.views.policies import FixedScales
from lavis_dynrefer.views.view_processor import ViewProcessor

CANDIDATES = (0.25, 0.5, 1.0)
BOXES = torch.tensor([[10.0, 10.0, 40.0, 30.0], [5.0, 40.0, 30.0, 60.0], [0.0, 0.0, 70.0, 50.0]])


def image():
    pixels = torch.randint(0, 256, (64, 80, 3), generator=torch.Generator().manual_seed(3))
    return Image.fromarray(pixels.to(torch.uint8).numpy())


@pytest.fixture
def model(smallest_config):
    """A model with a head that was never trained."""
    config = copy.deepcopy(smallest_config)
    config["scale_prior"] = {"candidates": list(CANDIDATES), "width": 8}
    config["trainable"] = ["scale_prior"]
    torch.manual_seed(0)
    return DynRefer.from_config(config)


def crops(policy, model):
    return ViewProcessor(policy, image_size=model.region_encoder.image_size).crop(image(), BOXES)


def fixed(model, scale):
    return model.predict(crops(FixedScales([0, scale]), model))


def with_favourite(model, choice):
    """Let the head prefer a choice, as if it had been trained."""
    model.scale_prior.steps += 1
    last = model.scale_prior.scores[-1]
    torch.nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.copy_(torch.eye(len(CANDIDATES))[choice])
    return model


@pytest.mark.parametrize("choice", [0, 2])
def test_answers_are_those_of_the_chosen_views(model, choice):
    with_favourite(model, choice)
    expected = fixed(model, CANDIDATES[choice])

    found = model.predict(crops(LearnedPrior(2, candidates=CANDIDATES), model))

    assert [one.scales for one in found] == [dict.fromkeys(TASKS, (0.0, CANDIDATES[choice]))] * 3
    assert [one.caption for one in found] == [one.caption for one in expected]
    for one, other in zip(found, expected):
        assert dict(one.attributes) == pytest.approx(dict(other.attributes), abs=1e-5)


def test_tasks_with_views_of_their_own_keep_them(model):
    with_favourite(model, 2)
    policy = LearnedPrior(2, candidates=CANDIDATES, scales={"categories": [0, 0.5]})

    found = model.predict(crops(policy, model))

    assert found[0].scales["categories"] == (0.0, 0.5)
    assert found[0].scales["caption"] == (0.0, 1.0)
    expected = fixed(model, 0.5)
    for one, other in zip(found, expected):
        assert dict(one.categories) == pytest.approx(dict(other.categories), abs=1e-5)


def test_confidence_keeps_the_likeliest_caption(model):
    by_scale = [fixed(model, scale) for scale in CANDIDATES]
    best = [max(answers, key=lambda one: one.caption_score) for answers in zip(*by_scale)]

    found = model.predict(crops(ConfidencePrior(2, candidates=CANDIDATES), model))

    assert [one.caption for one in found] == [one.caption for one in best]
    assert [one.scales["caption"] for one in found] == [one.scales["caption"] for one in best]


def test_only_what_is_needed_is_encoded(model):
    with_favourite(model, 0)
    encoded = []
    model.backbone.register_forward_hook(lambda part, given, found: encoded.append(len(found)))
    policy = LearnedPrior(2, candidates=CANDIDATES, scales={"attributes": [0, 0.5]})

    model.predict(crops(policy, model), tasks=["attributes"])
    assert sum(encoded) == 6  # two views of three regions: nothing was to be chosen
    encoded.clear()
    model.predict(crops(policy, model), tasks=["caption"])
    assert sum(encoded) == 9  # the region, the widest view to choose by, the chosen one


def test_each_view_is_encoded_once(model):
    with model.answering(crops(LearnedPrior(2, candidates=CANDIDATES), model)) as (
        answerer,
        sample,
    ):
        seen = SeenViews(answerer, sample)
        columns = torch.tensor([[0, 3], [0, 1], [2, 3]])
        with torch.no_grad():
            some = seen.features(columns)
            again = seen.features(columns.flip(1))
            every = answerer.encode(sample)

    assert torch.equal(again.summary, some.summary.flip(1))
    assert torch.allclose(some.maps, every.select(columns).maps, atol=1e-5)


def test_a_head_that_is_not_trained_chooses_nothing(model, smallest_model):
    sample = crops(LearnedPrior(2, candidates=CANDIDATES), model)

    with pytest.raises(ValueError, match="scale_prior of this model is not trained"):
        model.predict(sample)
    with pytest.raises(ValueError, match="this model has no scale_prior"):
        smallest_model.predict(sample)
    assert "learned" not in usable_policies(model)
    assert "learned" in usable_policies(with_favourite(model, 0))


def test_the_candidates_must_be_those_of_the_head(model):
    sample = crops(LearnedPrior(2, candidates=[0.25, 0.75, 1.0]), with_favourite(model, 0))

    with pytest.raises(ValueError, match=r"chooses among .*0\.5.* offers .*0\.75"):
        model.predict(sample)


def training_batch(model):
    words = {"captions": ["a red house", "a tree", "a boat"], "tags": [[0], [1], [2]]}
    return {**crops(LearnedPrior(2, candidates=CANDIDATES), model), **words, "controls": ["|"] * 3}


def test_training_follows_the_likelihood_of_the_captions(model):
    batch, model = training_batch(model), model.train()
    optimizer = torch.optim.Adam(model.scale_prior.parameters(), lr=0.02)
    first = model(batch)
    for _ in range(60):
        optimizer.zero_grad()
        losses = model(batch)
        losses["loss"].backward()
        optimizer.step()

    assert {name for name, one in model.named_parameters() if one.grad is not None} == {
        f"scale_prior.{name}" for name, _ in model.scale_prior.named_parameters()
    }
    assert losses["loss"] < first["loss"]
    assert model.scale_prior.steps == 61
    assert model.training
    costs = torch.tensor([[1.0, 2.0], [3.0, 1.0]])
    told = prior_losses(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), costs)
    assert told["loss_chosen"] == pytest.approx(2.0)  # 1 and 3
    assert told["loss_fixed"] == pytest.approx(1.5)  # the second choice for both: 2 and 1


def test_other_parts_are_not_trained_on_chosen_views(smallest_model, model):
    with pytest.raises(ValueError, match=r"model\.trainable: \[scale_prior\]"):
        smallest_model(training_batch(model))


def test_a_head_is_saved_with_the_model_and_may_be_missing(model, smallest_config, tmp_path):
    state = {name: value for name, value in with_favourite(model, 1).state_dict().items()}
    old = {name: value for name, value in state.items() if not name.startswith("scale_prior.")}
    torch.save({"model": state}, tmp_path / "new.pth")
    torch.save({"model": old}, tmp_path / "old.pth")
    config = {**smallest_config, "scale_prior": {"candidates": list(CANDIDATES), "width": 8}}

    def loaded(name):
        path = str(tmp_path / name)
        return DynRefer.from_config({**config, "load_finetuned": True, "finetuned": path})

    assert loaded("new.pth").scale_prior.steps == 1
    assert loaded("old.pth").scale_prior.steps == 0


def test_three_views_choose_pairs(smallest_config):
    config = copy.deepcopy(smallest_config)
    config["region"]["num_views"] = 3
    config["scale_prior"] = {"candidates": list(CANDIDATES), "width": 8}
    torch.manual_seed(0)
    model = DynRefer.from_config(config)
    model.scale_prior.steps += 1

    found = model.predict(crops(LearnedPrior(3, candidates=CANDIDATES), model))

    assert {one.scales["caption"] for one in found} <= {(0.0, 0.25, 0.5), (0.0, 0.5, 1.0)}


def test_numbers_about_a_box():
    numbers = box_numbers(torch.tensor([[0.25, 0.5, 0.75, 1.0]]))[0]

    assert numbers[:9].tolist() == [0.25, 0.5, 0.75, 1.0, 0.5, 0.75, 0.5, 0.5, 0.5]
    assert numbers[9:].tolist() == pytest.approx([-0.6931, -0.6931], abs=1e-4)
