"""Random scales that are sampled by their losses."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from lavis_dynrefer.models.choosing.scale_losses import EVERY, ScaleLosses
from lavis_dynrefer.training import loaders
from lavis_dynrefer.training.loop import scale_weights
from lavis_dynrefer.training.run_settings import RunSettings
from lavis_dynrefer.views.policies import RandomScales
from lavis_dynrefer.views.view_processor import ViewProcessor

SCALES = [0.25, 0.5, 1.0]


def losses_at(scales, losses):
    told = ScaleLosses(SCALES)
    told.add(torch.tensor([[0.0, scale] for scale in scales]), torch.tensor(losses))
    return told


def test_weights_are_in_proportion_to_the_mean_losses():
    told = losses_at([0.25, 0.25, 0.5, 1.0], [2.0, 4.0, 1.0, 1.0])
    assert told.weights(SCALES).tolist() == pytest.approx([1 / 3] * 3)  # before an update

    told.update()

    assert told.weights(SCALES).tolist() == pytest.approx([0.6, 0.2, 0.2])
    assert told.weights([0.5, 0.25]).tolist() == pytest.approx([0.25, 0.75])
    with pytest.raises(ValueError, match="expected some of"):
        told.weights([0.3])


def test_means_move_half_of_the_way_and_stay_where_nothing_is_new():
    told = losses_at([0.25, 0.5], [3.0, 1.0])
    told.update()
    told.add(torch.tensor([[0.0, 0.25]]), torch.tensor([1.0]))

    told.update()
    told.update()

    means = told.state_dict()["means"]
    assert means[:2] == [2.0, 1.0]
    # A scale without any loss yet counts as the mean of the others.
    assert told.weights(SCALES).tolist() == pytest.approx([2 / 4.5, 1 / 4.5, 1.5 / 4.5])


def test_each_nested_view_of_a_region_counts():
    told = ScaleLosses(SCALES)
    told.add(torch.tensor([[0.0, 0.25, 1.0]]), torch.tensor([2.0]))
    told.update()
    assert told.state_dict()["means"][0] == told.state_dict()["means"][2] == 2.0


def test_losses_of_every_fourth_batch_are_due():
    told = ScaleLosses(SCALES)
    assert [told.is_due() for _ in range(EVERY + 1)] == [True, False, False, False, True]


def test_a_checkpoint_continues_the_means():
    told = losses_at([0.25, 0.5], [3.0, 1.0])
    told.update()
    told.add(torch.tensor([[0.0, 0.25]]), torch.tensor([1.0]))
    state = told.state_dict()
    again, another = ScaleLosses(SCALES), ScaleLosses(SCALES)

    again.load_state_dict(state)
    another.load_state_dict(state, first=False)

    for one in (told, again):
        one.update()
    assert again.weights(SCALES).tolist() == told.weights(SCALES).tolist()
    assert another.state_dict()["sums"] == [[0.0] * 3] * 2  # else two processes would count twice
    with pytest.raises(ValueError, match="the checkpoint has"):
        ScaleLosses([0.5]).load_state_dict(state)


class Views(Dataset):
    """Views of one region, as a training set crops them."""

    def __init__(self, processor):
        self.vis_processor = processor

    def __len__(self):
        return 48

    def __getitem__(self, index):
        del index
        return self.vis_processor(Image.new("RGB", (20, 20)))["scales"]

    def collater(self, samples):
        return torch.cat(samples)


class Model(torch.nn.Module):
    scale_losses = None


def trained_on(workers=0, start=0, state=None, steps=None):
    """Scales of each batch of an epoch in which small views cost most; and the state in the end."""
    dataset = Views(ViewProcessor(RandomScales(2, candidates=SCALES, weights="loss"), image_size=4))
    model = Model()
    run = RunSettings(max_epoch=1, init_lr=0.1, seed=5, batch_size_train=4, num_workers=workers)
    loader = loaders.TrainingLoader(dataset, run, cuda=False)
    loader.scale_weights = scale_weights.weigh_scales_by_loss(model, [dataset])
    if state is not None:
        model.scale_losses.load_state_dict(state)
    loader.start_epoch(0, step=start)
    seen = []
    for scales in loader:
        seen.append(scales[:, 1].tolist())
        if model.scale_losses.is_due():
            model.scale_losses.add(scales, 0.01 + 50 * (scales[:, 1] < 0.3))
        if len(seen) == steps:
            break
    return seen, model.scale_losses.state_dict()


@pytest.fixture
def _update_often(monkeypatch):
    monkeypatch.setattr(scale_weights, "BATCHES", 4)


@pytest.mark.usefixtures("_update_often")
def test_scales_that_cost_most_are_sampled_most():
    seen, _ = trained_on()
    assert len(seen) == 12
    small = [batch.count(0.25) for batch in seen]
    assert 0 < sum(small[:4]) <= 8  # of 16, a third of which are expected
    assert sum(small[8:]) >= 14  # after two updates, nearly all


@pytest.mark.usefixtures("_update_often")
@pytest.mark.parametrize("start", [4, 6])  # at an update, and between two
def test_a_resumed_epoch_goes_on_with_the_same_scales(start):
    whole, _ = trained_on()
    _, state = trained_on(steps=start)

    assert trained_on(start=start, state=state)[0] == whole[start:]


@pytest.mark.usefixtures("_update_often")
def test_scales_do_not_depend_on_the_number_of_workers():
    assert trained_on(workers=2)[0] == trained_on()[0]


def test_datasets_without_the_option_and_models_that_do_not_tell_are_left_alone():
    plain = Views(ViewProcessor(RandomScales(2, candidates=SCALES), image_size=4))
    by_loss = Views(ViewProcessor(RandomScales(2, weights="loss"), image_size=4))

    assert scale_weights.weigh_scales_by_loss(Model(), [plain, object()]) is None
    with pytest.raises(ValueError, match="Linear does not tell its losses"):
        scale_weights.weigh_scales_by_loss(torch.nn.Linear(1, 1), [by_loss])
