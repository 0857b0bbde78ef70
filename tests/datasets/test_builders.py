from __future__ import annotations

import json
import logging

import pytest
import torch
from lavis.common.registry import registry
from lavis.datasets.builders import load_dataset
from omegaconf import OmegaConf
from PIL import Image
from vg_rows import image, region, write_raw

from lavis_dynrefer.datasets.dataset_catalog import SOURCES
from lavis_dynrefer.datasets.sources.raw_files import DatasetError
from lavis_dynrefer.synthetic.scene_dataset import read_truth


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
    entries, images = [], []
    for number in (1, 2, 3):
        Image.new("RGB", (40, 30), (80 * number, 0, 0)).save(folder / f"{number}.jpg")
        rows = [region(10 * number + row, f"A Dog {row}.", (5, 5, 20, 20)) for row in (0, 1)]
        entries.append({"id": number, "regions": rows})
        images.append(image(number, width=40, height=30))
    write_raw(tmp_path, entries, images, {"train": [1], "val": [2], "test": [3]})
    return tmp_path


@pytest.mark.parametrize("name", SOURCES)
def test_every_dataset_has_a_yaml_and_a_builder_under_its_own_name(name):
    assert list(default_config(name).datasets) == [name]
    assert issubclass(registry.get_builder_class(name), SOURCES[name])


def test_raw_files_become_datasets_by_split(vg):
    datasets = build("vg_region", root=str(vg))

    assert list(datasets) == ["train", "val", "test"]
    assert [len(datasets[split]) for split in datasets] == [2, 1, 1]
    assert [datasets[split].train for split in datasets] == [True, False, False]
    assert {dataset.evaluator for dataset in datasets.values()} == {"dense_caption"}
    assert datasets["val"].name == "vg1.2-densecap-gt"


def test_a_training_batch_is_what_the_model_takes(vg, tmp_path):
    (tmp_path / "tags.txt").write_text("cat\ndog\n", encoding="utf-8")
    captioning = {"control_pos": None, "control_drop_all": 0, "control_drop": 0}
    model = {"tagging": {"vocabulary": str(tmp_path / "tags.txt")}, "captioning": captioning}
    dataset = build("vg_region", root=str(vg), splits=["train"], model=model)["train"]

    batch = dataset.collater([dataset[0], dataset[1]])

    assert batch["views"].shape == (2, 2, 3, 28, 28)
    assert batch["views"].dtype == torch.uint8
    assert batch["captions"] == ["a dog 0", "a dog 1"]
    assert batch["tags"] == [[1], [1]]
    assert batch["controls"] == ["dog|", "dog|"]
    assert dataset.tag_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("model", "info", "expected", "origin"),
    [
        ({}, {}, 0.5, "the default"),
        ({"captioning": {"control_drop": 0.1}}, {}, 0.1, "the model's"),
        ({"captioning": {"control_drop": 0.1}}, {"control_drop": 0.2}, 0.2, "the dataset's"),
    ],
)
def test_control_settings_come_from_the_dataset_else_the_model_else_the_defaults(
    vg, caplog, model, info, expected, origin
):
    with caplog.at_level(logging.INFO):
        datasets = build("vg_region", root=str(vg), splits=["train"], model=model, **info)

    assert datasets["train"].controls.drop == expected
    assert f"control_drop {expected}, {origin}" in caplog.text


def test_noun_phrases_are_control_words_unless_the_model_says_otherwise(vg):
    pytest.importorskip("textblob")
    model = {"captioning": {"control_drop_all": 0, "control_drop": 0}}

    dataset = build("vg_region", root=str(vg), splits=["train"], tags=None, model=model)["train"]

    assert dataset[0]["controls"] == ["dog|"]


def test_an_evaluation_sample_is_a_whole_image(vg):
    sample = build("vg_region", root=str(vg), splits=["val"])["val"][0]

    assert sample["region_ids"] == [20, 21]
    assert sample["views"].shape == (2, 2, 3, 28, 28)
    assert sample["image_boxes"].tolist() == [[5, 5, 25, 25], [5, 5, 25, 25]]


def test_an_unreadable_image_keeps_the_shape_of_the_views(vg):
    (vg / "images/VG_100K/2.jpg").write_bytes(b"")
    dataset = build("vg_region", root=str(vg), splits=["val"], on_error="skip")["val"]

    batch = dataset.collater([dataset[0]])

    assert batch["views"].shape == (0, 2, 3, 28, 28)
    assert [row["region_id"] for row in batch["failed"]] == [20, 21]


def test_automatic_tags_are_the_words_of_the_training_captions(vg):
    dataset = build("vg_region", root=str(vg), splits=["train"], tags="auto")["train"]

    assert dataset.tag_names == ("dog",)
    assert dataset[0]["tags"] == [[0]]


def test_training_without_tags_is_logged(vg, caplog):
    with caplog.at_level(logging.WARNING):
        dataset = build("vg_region", root=str(vg), splits=["train"], tags=None)["train"]

    assert "regions have no tags" in caplog.text
    assert dataset.tag_names is None
    assert dataset[0]["tags"] == [[]]


def test_the_two_archives_may_be_unpacked_into_the_root(vg):
    (vg / "images/VG_100K").rename(vg / "VG_100K")
    (vg / "images").rmdir()

    assert len(build("vg_region", root=str(vg))["train"]) == 2


def test_splits_can_be_renamed_and_the_training_split_then_evaluated(vg):
    names = {"val": "vg_val", "train": "seen"}

    datasets = build("vg_region", root=str(vg), splits=["val", "train"], split_names=names)

    assert [(name, dataset.train) for name, dataset in datasets.items()] == [
        ("vg_val", False),
        ("seen", False),
    ]


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
        ({"roots": "x"}, r"unknown \['roots'\]; did you mean root"),
        ({"splits": ["dev"]}, r"unknown \['dev'\]"),
        ({"split_names": {"val": "test"}}, "share a name"),
        ({"on_error": "ignore"}, "on_error: expected 'raise' or 'skip'"),
        ({"evaluator": "bleu"}, "evaluator: expected 'dense_caption'"),
        ({"max_regions": "many"}, "max_regions: expected an integer"),
        ({"regions_per_image": 0}, "regions_per_image: expected at least 1"),
        ({"tags": "absent.txt"}, r"build_info\.tags: no file 'absent\.txt'"),
    ],
)
def test_a_wrong_setting_is_named(vg, info, message, monkeypatch):
    monkeypatch.delenv("VG_ROOT", raising=False)

    with pytest.raises((ValueError, FileNotFoundError), match=message):
        build("vg_region", **{"root": str(vg), **info})


def test_an_unknown_key_beside_build_info_is_named():
    config = default_config("ovad").datasets.ovad
    config.build_inf = {}

    with pytest.raises(DatasetError, match="build_inf"):
        registry.get_builder_class("ovad")(config).build_datasets()


def test_an_unknown_type_is_named():
    with pytest.raises(DatasetError, match=r"choose from \['default', 'v1\.2', 'v1\.0'"):
        SOURCES["vg_region"].default_config_path("v2")


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
    listed = {"id": 990001, "file_name": "990001.jpg", "width": 640, "height": 511}
    path = tmp_path / "test_caption.json"
    path.write_text(json.dumps({"images": [listed], "annotations": [row]}), encoding="utf-8")

    datasets = build(
        "vg_region", "reg", annotations=str(path), images={"storage": str(root / "images/VG_100K")}
    )

    assert list(datasets) == ["test"]
    assert (datasets["test"].name, datasets["test"].evaluator) == ("vg-reg-5k", "reg")
    assert datasets["test"][0]["captions"] == ["A sink."]


@pytest.mark.parametrize(
    ("name", "folder", "info", "expected"),
    [
        ("ovad", "coco_ovad_e2e", {}, {"ovad_val": ("attributes", 104, 14)}),
        ("coco_region", "coco_ovad_e2e", {}, {"coco_val": ("categories", 111, 14)}),
        (
            "refcocog_region",
            "refcocog_format",
            {"images": {"storage": "images/train2014"}, "splits": ["train", "val"]},
            {"train": ("reg", 6, 6), "refcocog_val": ("reg", 6, 1)},
        ),
    ],
)
def test_the_real_samples_of_other_datasets_load(shared, name, folder, info, expected):
    datasets = build(name, root=str(shared / "fixtures" / folder), **info)

    assert {
        split: (dataset.evaluator, len(dataset.region_set.regions), len(dataset))
        for split, dataset in datasets.items()
    } == expected


def test_synthetic_scenes_are_generated_once_for_every_task(tmp_path, monkeypatch):
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


@pytest.mark.parametrize(
    "labels", [{}, {"labels": "truth", "tags": "vocab/data/synthetic_truth.txt"}]
)
def test_synthetic_objects_may_have_their_full_captions_alone(tmp_path, monkeypatch, labels):
    monkeypatch.setenv("DYNREFER_CACHE", str(tmp_path))
    wanted = {"scenes": 5, "splits": ["train", "val"], **labels}

    every = build("synthetic_region", **{**wanted, "labels": "captions", "tags": None})
    full = build("synthetic_region", captions="full", **wanted)

    truth = read_truth(next(tmp_path.glob("synthetic-*")), "train")
    phrases = [row["phrase"] for row in truth.values() if row["form"] == "full"]
    assert [one.caption for one in full["train"].region_set.regions] == phrases
    assert 2 * len(phrases) <= len(every["train"].region_set.regions)
    assert len(full["val"].region_set.regions) == len(every["val"].region_set.regions)


def test_a_folder_with_other_files_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.txt").touch()

    with pytest.raises(DatasetError, match="choose another folder"):
        build("synthetic_region", root=str(tmp_path), scenes=5)
