"""LAVIS's `load_dataset`: as it is, with a part of the keys, and for a model."""

from __future__ import annotations

import pytest
import torch
from lavis.datasets.builders import dataset_zoo, load_dataset
from lavis.models import load_model_and_preprocess
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from lavis_dynrefer.datasets.sources.raw_files import DatasetError
from lavis_dynrefer.synthetic.scene_dataset import write_dataset

TINY = {"arch": "dynrefer", "model_type": "tiny"}
FOLDERS = {"vg_region": "vg", "ovad": "ovad", "coco_region": "coco"}
VARIABLES = {"ovad": "OVAD_ROOT", "coco_region": "COCO_ROOT"}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Generated scenes in the raw formats of the real datasets."""
    root = tmp_path_factory.mktemp("scenes")
    write_dataset(root, scenes=6, seed=0, world="landmark")
    return root


@pytest.fixture(scope="module")
def loaded():
    return load_model_and_preprocess("dynrefer", "tiny", is_eval=True, device="cpu")


@pytest.fixture
def cfg(scenes, tmp_path):
    """Writes a file with some of a dataset's keys; returns its path."""

    def write(name, model=None, **info):
        path = tmp_path / f"{name}.yaml"
        build_info = {"root": str(scenes / FOLDERS[name]), **info}
        content = {"datasets": {name: {"build_info": build_info}}, "model": model or {}}
        OmegaConf.save(OmegaConf.create(content), path)
        return str(path)

    return write


def further(name, scenes):
    """OVAD's images are those of COCO; a tagger of captions takes seconds to begin."""
    if name == "ovad":
        return {"images": {"storage": str(scenes / "coco" / "val2017")}}
    return {"splits": ["val"]} if name == "vg_region" else {}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_part_of_the_keys_and_the_name_of_a_model_are_enough(name, cfg, scenes, loaded):
    datasets = load_dataset(name, cfg_path=cfg(name, TINY, **further(name, scenes)))

    split = next(split for split in datasets if split != "train")
    sample = datasets[split][0]
    assert sample["views"].shape[1:] == (2, 3, 64, 64)
    assert len(loaded[0].predict(sample, tasks=["categories"])) == len(sample["region_ids"])


@pytest.mark.parametrize("name", VARIABLES)
def test_without_a_file_the_root_comes_from_the_environment(name, scenes, monkeypatch):
    monkeypatch.setenv(VARIABLES[name], str(scenes / FOLDERS[name]))

    datasets = load_dataset(name, vis_path=str(scenes / "coco" / "val2017"), data_type="images")

    assert datasets["val"][0]["views"].shape[1:] == (3, 3, 224, 224)


def test_a_dataset_takes_the_processors_of_the_model(cfg, loaded):
    model, vis_processors, txt_processors = loaded
    dataset = load_dataset("coco_region", cfg("coco_region"))["val"]
    with pytest.raises(ValueError, match=r"got 3 views of 224 x 224 .* takes 2 of 64 x 64"):
        model.predict(dataset[0])

    dataset.set_processors(vis_processors["eval"], txt_processors["eval"])

    assert len(model.generate(dataset[0], max_length=2)) == len(dataset[0]["region_ids"])


def test_a_split_is_found_under_both_its_names(cfg):
    datasets = load_dataset("coco_region", cfg("coco_region"))

    assert list(datasets) == ["coco_val"]
    assert datasets["val"] is datasets["coco_val"]
    with pytest.raises(KeyError, match=r"no split 'test'; there are \['coco_val'\]"):
        datasets["test"]


@pytest.mark.parametrize("collated", ["by the dataset", "by torch"])
def test_a_loader_gives_what_the_losses_need(cfg, loaded, collated):
    own = {"tags": "vocab/data/synthetic_tags.txt", "control_pos": None, "splits": ["train"]}
    dataset = load_dataset("vg_region", cfg("vg_region", TINY, **own))["train"]
    collater = {"collate_fn": dataset.collater} if collated == "by the dataset" else {}

    batch = next(iter(DataLoader(dataset, batch_size=3, **collater)))

    assert batch["views"].shape == (3, 2, 3, 64, 64)
    assert len(batch["captions"]) == 3
    assert torch.isfinite(loaded[0](batch)["loss"])


def test_vis_path_is_the_folder_of_the_images(cfg, tmp_path):
    with pytest.raises(DatasetError, match="nowhere"):
        load_dataset("coco_region", cfg("coco_region"), vis_path=str(tmp_path / "nowhere"))


def test_a_file_with_another_dataset_is_refused(cfg):
    with pytest.raises(DatasetError, match=r"datasets\.ovad, got \['coco_region'\]"):
        load_dataset("ovad", cfg("coco_region"))


def test_a_file_of_several_datasets_has_a_section_for_each(cfg, scenes, tmp_path):
    both = [OmegaConf.load(cfg(name, **further(name, scenes))) for name in FOLDERS]
    OmegaConf.save(OmegaConf.merge(*both), tmp_path / "both.yaml")

    assert list(load_dataset("vg_region", str(tmp_path / "both.yaml"))) == ["val"]
    assert list(load_dataset("ovad", str(tmp_path / "both.yaml"))) == ["ovad_val"]


def test_all_datasets_are_listed():
    names = dataset_zoo.get_names()

    assert {*FOLDERS, "refcocog_region", "synthetic_region", "custom_region"} <= set(names)
