"""Datasets of every phase in the worker processes of a loader, which macOS and Windows spawn."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image
from torch.utils.data import DataLoader


@pytest.fixture
def datasets(tmp_path):
    """A `custom_region` with tags, LAVIS's text processor, and both of our image processors."""
    for number in (1, 2):
        Image.new("RGB", (40, 30), (60 * number, 90, 30)).save(tmp_path / f"{number}.png")
    rows = [
        {"id": n, "image_id": n, "bbox": [3, 4, 20, 20], "caption": "A dog!", "tags": ["dog"]}
        for n in (1, 2)
    ]
    images = [{"id": n, "file_name": f"{n}.png"} for n in (1, 2)]
    document = json.dumps({"images": images, "annotations": rows})
    (tmp_path / "own.json").write_text(document, encoding="utf-8")
    (tmp_path / "tags.txt").write_text("dog\ncat", encoding="utf-8")
    builder = registry.get_builder_class("custom_region")
    own = {
        "root": str(tmp_path),
        "images": {"storage": "."},
        "annotations": {"train": "own.json", "val": "own.json"},
        "tags": str(tmp_path / "tags.txt"),
    }
    model = {"vision": {"image_size": 28}, "region": {"num_views": 2}}
    config = OmegaConf.merge(
        OmegaConf.load(builder.default_config_path()),
        {"datasets": {"custom_region": {"build_info": own}}, "model": model},
    )
    return builder(config.datasets.custom_region).build_datasets()


def seeded(dataset):
    torch.manual_seed(0)
    return dataset[0]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_pickled_dataset_gives_the_same_samples(datasets, split):
    dataset = datasets[split]

    pickled = pickle.dumps(dataset)
    copy = pickle.loads(pickled)

    assert len(pickled) < 10_000  # tables are opened again, not copied
    ours, theirs = seeded(dataset), seeded(copy)
    assert ours.keys() == theirs.keys()
    assert ours["captions"] == theirs["captions"]
    assert torch.equal(ours["boxes"], theirs["boxes"])
    assert torch.equal(ours["views"], theirs["views"])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_batches_come_from_spawned_workers(datasets, method):
    if method not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    for split, dataset in datasets.items():
        loader = DataLoader(
            dataset,
            batch_size=2,
            num_workers=2,
            collate_fn=dataset.collater,
            multiprocessing_context=method,
        )
        (batch,) = loader

        assert batch["region_ids"] == [1, 2]
        assert batch["captions"] == ["a dog" if split == "train" else "A dog!"] * 2
        assert batch["views"].shape[0] == 2
