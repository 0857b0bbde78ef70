from __future__ import annotations

import json
import logging

import pytest
import torch
from lavis.common.registry import registry
from lavis.datasets.builders import load_dataset
from omegaconf import OmegaConf
from PIL import Image

import lavis_dynrefer.host.registration
from lavis_dynrefer.datasets.sources.raw_files import DatasetError
from lavis_dynrefer.vocab import Tagger

lavis_dynrefer.host.registration.connect()


def default_config(name, kind="default"):
    return OmegaConf.load(registry.get_builder_class(name).default_config_path(kind))


def build(name, kind=None, model=None, **info):
    """As a run does: the default yaml, what the run says about the dataset, and the model."""
    own = {"build_info": info, **({"type": kind} if kind else {})}
    model = {"vision": {"image_size": 28}, "region": {"num_views": 2}, **(model or {})}
    config = OmegaConf.merge(
        default_config(name, kind or "default"), {"datasets": {name: own}, "model": model}
    )
    return registry.get_builder_class(name)(config.datasets[name]).build_datasets()


@pytest.fixture
def vg(tmp_path):
    """Raw files of three images of 40 x 30 pixels, one for each split, two regions each."""
    folder = tmp_path / "images" / "VG_100K"
    folder.mkdir(parents=True)
    regions, images = [], []
    for number in (1, 2, 3):
        Image.new("RGB", (40, 30), (80 * number, 0, 0)).save(folder / f"{number}.jpg")
        sides = {"x": 5, "y": 5, "width": 20, "height": 20}
        rows = [
            {"region_id": 10 * number + row, "image_id": number, "phrase": f"A Dog {row}.", **sides}
            for row in (0, 1)
        ]
        regions.append({"id": number, "regions": rows})
        url = f"https://example.org/VG_100K/{number}.jpg"
        images.append({"image_id": number, "width": 40, "height": 30, "url": url, "coco_id": None})
    files = {
        "region_descriptions": regions,
        "image_data": images,
        "densecap_splits": {"train": [1], "val": [2], "test": [3]},
    }
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "name", ["vg_region", "ovad", "coco_region", "refcocog_region", "synthetic_region"]
)
def test_every_builder_has_a_yaml_under_its_own_name(name):
    assert list(default_config(name).datasets) == [name]


def test_raw_files_become_datasets_by_split(vg):
    datasets = build("vg_region", root=str(vg))

    assert list(datasets) == ["train", "val", "test"]
    assert [len(datasets[split]) for split in datasets] == [2, 1, 1]
    assert [datasets[split].train for split in datasets] == [True, False, False]
    assert {dataset.evaluator for dataset in datasets.values()} == {"dense_caption"}
    assert datasets["val"].name == "vg1.2-densecap-gt"


def test_a_training_batch_is_what_the_model_takes(vg):
    dataset = build("vg_region", root=str(vg), tags=None, splits=["train"])["train"]

    batch = dataset.collater([dataset[0], dataset[1]])

    assert batch["views"].shape == (2, 2, 3, 28, 28)
    assert batch["views"].dtype == torch.uint8
    assert batch["captions"] == ["a dog 0", "a dog 1"]
    assert batch["tags"] == [[], []]


def test_an_evaluation_sample_is_a_whole_image(vg):
    dataset = build("vg_region", root=str(vg), splits=["val"])["val"]

    sample = dataset[0]

    assert sample["region_ids"] == [20, 21]
    assert sample["views"].shape == (2, 2, 3, 28, 28)
    assert sample["image_boxes"].tolist() == [[5, 5, 25, 25], [5, 5, 25, 25]]


def test_an_image_that_cannot_be_read_keeps_the_shape_of_the_views(vg):
    (vg / "images/VG_100K/2.jpg").write_bytes(b"")
    dataset = build("vg_region", root=str(vg), splits=["val"], on_error="skip")["val"]

    batch = dataset.collater([dataset[0]])

    assert batch["views"].shape == (0, 2, 3, 28, 28)
    assert [row["region_id"] for row in batch["failed"]] == [20, 21]


def test_tags_are_those_of_the_model_in_the_run(vg, tmp_path):
    (tmp_path / "tags.txt").write_text("dog\ncat\n", encoding="utf-8")
    model = {"tagging": {"vocabulary": str(tmp_path / "tags.txt")}}

    dataset = build("vg_region", root=str(vg), splits=["train"], model=model)["train"]

    assert dataset[0]["tags"] == [["dog"]]


def test_automatic_tags_are_the_words_of_the_training_captions(vg):
    dataset = build("vg_region", root=str(vg), splits=["train"], tags="auto")["train"]

    assert dataset.tagger.tags == ("dog",)
    assert isinstance(dataset.tagger, Tagger)


def test_training_without_tags_is_said(vg, caplog):
    with caplog.at_level(logging.WARNING):
        build("vg_region", root=str(vg), splits=["train"], tags=None)

    assert "regions have no tags" in caplog.text


def test_files_may_be_named_one_by_one(vg, tmp_path):
    other = tmp_path / "elsewhere.json"
    (vg / "region_descriptions.json").rename(other)
    (vg / "images").rename(tmp_path / "images")

    datasets = build(
        "vg_region",
        root=str(vg),
        region_descriptions=str(other),
        images={"storage": "images"},
    )

    assert len(datasets["train"]) == 2


def test_the_two_archives_may_be_unpacked_into_the_root(vg):
    (vg / "images/VG_100K").rename(vg / "VG_100K")
    (vg / "images").rmdir()

    assert len(build("vg_region", root=str(vg))["train"]) == 2


def test_splits_can_be_renamed_so_that_datasets_do_not_collide(vg):
    datasets = build("vg_region", root=str(vg), splits=["val"], split_names={"val": "vg_val"})

    assert list(datasets) == ["vg_val"]


def test_the_training_split_can_be_evaluated_under_another_name(vg):
    datasets = build("vg_region", root=str(vg), splits=["train"], split_names={"train": "seen"})

    assert not datasets["seen"].train


def test_a_trial_takes_the_first_regions_and_says_so(vg):
    datasets = build("vg_region", root=str(vg), max_regions=1)

    assert [len(part.region_set.regions) for part in datasets.values()] == [1, 1, 1]
    assert datasets["val"].name == "vg1.2-densecap-gt-trial"


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"root": None}, "root is not set.*export VG_ROOT"),
        ({"root": "/nowhere"}, r"no f.* /nowhere.*images"),
        ({"region_descriptions": "absent.json"}, r"absent\.json.*Set `region_descriptions`"),
        ({"roots": "x"}, r"unknown \['roots'\]; expected some of \['root'"),
        ({"splits": ["dev"]}, r"unknown \['dev'\]"),
        ({"split_names": {"val": "test"}}, "share a name"),
        ({"on_error": "ignore"}, "on_error"),
        ({"evaluator": "bleu"}, "evaluator"),
        ({"max_regions": "many"}, "expected int"),
    ],
)
def test_a_wrong_setting_is_named(vg, info, message, monkeypatch):
    monkeypatch.delenv("VG_ROOT", raising=False)

    with pytest.raises(ValueError, match=message):
        build("vg_region", **{"root": str(vg), **info})


def test_a_tag_list_that_is_missing_is_named(vg):
    with pytest.raises(FileNotFoundError, match=r"build_info\.tags: no file 'absent\.txt'"):
        build("vg_region", root=str(vg), tags="absent.txt")


def test_an_unknown_key_beside_build_info_is_named():
    config = default_config("ovad").datasets.ovad
    config.build_inf = {}

    with pytest.raises(DatasetError, match="build_inf"):
        registry.get_builder_class("ovad")(config).build_datasets()


def test_an_unknown_type_is_named():
    with pytest.raises(DatasetError, match=r"choose from \['default', 'v1\.2', 'v1\.0'"):
        registry.get_builder_class("vg_region").default_config_path("v2")


def test_lavis_loads_a_dataset_by_name_and_image_folder(vg, monkeypatch):
    monkeypatch.setenv("VG_ROOT", str(vg))

    datasets = load_dataset("vg_region", vis_path=str(vg / "images"))

    assert datasets["train"][0]["views"].shape == (1, 3, 3, 224, 224)


@pytest.mark.parametrize("version", ["v1.0", "v1.2"])
def test_the_real_samples_of_visual_genome_load(shared, version):
    folder = f"vg{version[1:]}"
    datasets = build(
        "vg_region",
        version,
        root=str(shared / "fixtures/vg_format_e2e"),
        region_descriptions=f"{folder}/region_descriptions.json",
        image_data=f"{folder}/image_data.json",
    )

    assert sum(len(part.region_set.regions) for part in datasets.values()) == 42
    assert len(datasets["test"][0]["region_ids"]) == len(datasets["test"][0]["views"])


def test_glamm_captions_are_the_reg_type(shared, tmp_path):
    root = shared / "fixtures/vg_format_e2e"
    row = {"id": 990001, "image_id": 990001, "bbox": [1, 2, 30, 40], "caption": "A sink."}
    image = {"id": 990001, "file_name": "990001.jpg", "width": 640, "height": 511}
    path = tmp_path / "test_caption.json"
    path.write_text(json.dumps({"images": [image], "annotations": [row]}), encoding="utf-8")

    datasets = build(
        "vg_region", "reg", annotations=str(path), images={"storage": str(root / "images/VG_100K")}
    )

    assert list(datasets) == ["test"]
    assert (datasets["test"].name, datasets["test"].evaluator) == ("vg-reg-5k", "reg")
    assert datasets["test"][0]["captions"] == ["A sink."]


@pytest.mark.parametrize(
    ("name", "split", "evaluator", "regions"),
    [
        ("ovad", "ovad_val", "attributes", 104),
        ("coco_region", "coco_val", "categories", 111),
    ],
)
def test_the_real_samples_of_coco_and_ovad_load(shared, name, split, evaluator, regions):
    datasets = build(name, root=str(shared / "fixtures/coco_ovad_e2e"))

    assert list(datasets) == [split]
    assert datasets[split].evaluator == evaluator
    assert len(datasets[split].region_set.regions) == regions
    assert len(datasets[split]) == 14


def test_the_sample_of_refcocog_loads(shared):
    root = shared / "fixtures/refcocog_format"

    datasets = build(
        "refcocog_region",
        root=str(root),
        images={"storage": "images/train2014"},
        splits=["train", "val"],
    )

    assert list(datasets) == ["train", "refcocog_val"]
    assert datasets["refcocog_val"].evaluator == "reg"


def test_synthetic_scenes_are_made_once_for_every_task(tmp_path, monkeypatch):
    monkeypatch.setenv("DYNREFER_CACHE", str(tmp_path))

    datasets = build("synthetic_region", scenes=5, tags="vocab/data/synthetic_tags.txt")

    assert {name: dataset.evaluator for name, dataset in datasets.items()} == {
        "train": "dense_caption",
        "val": "dense_caption",
        "test": "dense_caption",
        "synthetic_attributes": "attributes",
        "synthetic_categories": "categories",
    }
    assert datasets["test"].name == "synthetic-densecap"
    assert datasets["train"][0]["tags"][0]
    (folder,) = tmp_path.glob("synthetic-*")
    written = folder.stat().st_mtime_ns
    build("synthetic_region", scenes=5, splits=["val"])
    assert folder.stat().st_mtime_ns == written


def test_a_folder_with_other_things_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.txt").touch()

    with pytest.raises(DatasetError, match="name another folder"):
        build("synthetic_region", root=str(tmp_path), scenes=5)
