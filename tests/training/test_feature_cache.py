"""`run.feature_cache`: losses stay equal, and the size is told before."""

from __future__ import annotations

import shutil
from collections import namedtuple

import pytest
import torch

from lavis_dynrefer.datasets.region_dataset import RegionDataset
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.structures import ImageRecord, RegionRecord, RegionSet
from lavis_dynrefer.training.feature_cache import use_feature_cache
from lavis_dynrefer.views.policies import FixedScales, ImagePrior, RandomScales, TaskPrior
from lavis_dynrefer.views.view_processor import ViewProcessor

VIEW = 17 * 32 * 4  # bytes of the smallest model's tokens


def dataset(policy, regions=3, **masks):
    records = [RegionRecord(i, 1, (0.0, 0.0, 9.0, 9.0), "a dog") for i in range(regions)]
    images = {1: ImageRecord(1, "1.jpg", 20, 20)}
    region_set = RegionSet("toy", "train", images, records)
    return RegionDataset(region_set, ViewProcessor(policy, image_size=32, **masks), train=True)


@pytest.mark.parametrize(
    ("policy", "views"),
    [
        (RandomScales(3), 3 * 11),
        (RandomScales(2, candidates=[0.5, 1.0]), 3 * 3),
        (RandomScales(1), 3),
        (FixedScales([0, 0.5]), 3 * 2),
        (ImagePrior(3), 3 * 3),
        (TaskPrior({"caption": [0, 0.4], "tags": [0, 0.2]}), 3 * 3),
    ],
)
def test_the_size_is_told_before(tmp_path, smallest_model, caplog, policy, views):
    with caplog.at_level("INFO"):
        use_feature_cache(str(tmp_path), smallest_model, [dataset(policy), dataset(policy)])

    gigabytes = f"{2 * views * VIEW / 1e9:.1f}"
    assert f"up to {2 * views} different views of 0.00 MB are {gigabytes} GB" in caplog.text


def test_dimmed_views_are_counted_beside_the_others(tmp_path, smallest_model, caplog):
    for options, views in (
        ({"mask_share": 0.5}, 6),
        ({"mask_share": 0.5, "mask_views": "dim"}, 12),
        ({"mask_share": 1, "mask_views": "dim"}, 6),
        ({"mask_share": 0.5, "mask_views": "dim_own"}, 9),
        ({"mask_share": 0.5, "mask_views": "dim_own", "mask_noise": 2}, 3 * (1 + 5 + 1)),
        ({"mask_views": "dim_own"}, 6),  # the dataset gives no masks
    ):
        caplog.clear()
        with caplog.at_level("INFO"):
            some = dataset(FixedScales([0, 0.5]), **options)
            use_feature_cache(str(tmp_path), smallest_model, [some])
        assert f"up to {views} different views" in caplog.text


def test_a_disk_that_is_too_small_is_refused(tmp_path, smallest_model, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 11 * 3 * VIEW - 1))

    with pytest.raises(InputError, match=r"run\.feature_cache: up to 33 different views.*larger"):
        use_feature_cache(str(tmp_path), smallest_model, [dataset(RandomScales(3))])
    use_feature_cache(str(tmp_path), smallest_model, [dataset(FixedScales([0, 0.5]))])


def test_what_has_no_features_to_keep_is_refused(tmp_path, smallest_model):
    with pytest.raises(InputError, match="Linear has no features"):
        use_feature_cache(str(tmp_path), torch.nn.Linear(1, 1), [])
    with pytest.raises(InputError, match=r"of this package.*not of list"):
        use_feature_cache(str(tmp_path), smallest_model, [[]])
    smallest_model.backbone.requires_grad_(True)
    with pytest.raises(InputError, match="the backbone is trained"):
        use_feature_cache(str(tmp_path), smallest_model, [dataset(RandomScales(2))])


def test_losses_and_gradients_are_those_without_it(tmp_path, smallest_model, region_batch):
    def step():
        torch.manual_seed(0)
        losses = smallest_model.train()(region_batch)
        smallest_model.zero_grad()
        losses["loss"].backward()
        gradients = {
            name: weight.grad.clone()
            for name, weight in smallest_model.named_parameters()
            if weight.grad is not None
        }
        return {name: value.detach() for name, value in losses.items()}, gradients

    expected = step()
    use_feature_cache(str(tmp_path), smallest_model, [dataset(RandomScales(2))])
    first, again = step(), step()

    torch.testing.assert_close(first, expected, rtol=1e-4, atol=1e-5)
    assert str(first) == str(again)  # what is read is what was encoded
    cache = smallest_model.view_cache
    assert (cache.found, cache.encoded) == (10, 10)
    smallest_model.eval().predict(region_batch)  # evaluation keeps nothing
    assert (cache.found, cache.encoded) == (10, 10)
