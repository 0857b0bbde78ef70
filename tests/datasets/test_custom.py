from __future__ import annotations

import json
import logging

import pytest
from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image

import lavis_dynrefer.host.registration
from lavis_dynrefer.datasets.prepared import prepare
from lavis_dynrefer.datasets.sources.custom_json import read_custom
from lavis_dynrefer.datasets.sources.raw_files import DatasetError

lavis_dynrefer.host.registration.connect()

CATEGORIES = [{"id": 0, "name": "dog"}, {"id": 7, "name": "tennis racket"}]
CORNERS = [(60, 40, 95, 75), (50, 30, 80, 70), (70, 45, 99, 79)]  # of boxes on the right


def annotation(number, bbox=(10, 20, 30, 40), image_id=1, **keys):
    return {"id": number, "image_id": image_id, "bbox": list(bbox), **keys}


@pytest.fixture
def write(tmp_path):
    """Writes a json about two images of 100 x 80 pixels, of which the second has no row."""
    (tmp_path / "images").mkdir()
    for number in (1, 2):
        Image.new("RGB", (100, 80)).save(tmp_path / f"images/{number}.png")

    def _write(rows, name="own.json", **keys):
        images = [{"id": 1, "file_name": "1.png", "width": 100, "height": 80}]
        document = {"images": images, "annotations": rows, **keys}
        path = tmp_path / name
        path.write_text(json.dumps(document), encoding="utf-8")
        return path

    return _write


def read(path, split="train"):
    return read_custom(path, path.parent / "images", name="own", split=split)


def build(tmp_path, **info):
    builder = registry.get_builder_class("custom_region")
    default = OmegaConf.load(builder.default_config_path())
    own = {"build_info": {"root": str(tmp_path), "tags": None, **info}}
    model = {"vision": {"image_size": 28}, "region": {"num_views": 2}}
    config = OmegaConf.merge(default, {"datasets": {"custom_region": own}, "model": model})
    return builder(config.datasets.custom_region).build_datasets()


def test_a_region_has_everything_its_annotation_says(write):
    row = annotation(
        "5", caption="A Dog.", tags=["dog"], category_id=7, attributes=["wet"], iscrowd=1
    )

    found = read(write([row], categories=CATEGORIES, attributes=["red", "wet"]))

    (region,) = found.regions
    assert region.region_id == 5
    assert region.box == (10, 20, 40, 60)
    assert region.caption == "A Dog."
    assert region.tags == ("dog",)
    assert region.category == "tennis racket"
    assert region.attributes == (0, 1)
    assert region.iscrowd
    assert found.category_names == ("dog", "tennis racket")
    assert [item.name for item in found.attributes] == ["red", "wet"]


def test_several_annotations_of_a_box_are_several_captions(write):
    found = read(write([annotation(1, caption="a dog"), annotation(2, caption="an animal")]))

    assert [region.caption for region in found.regions] == ["a dog", "an animal"]


@pytest.mark.parametrize("row", [annotation(2), annotation(2, caption=" ")])
def test_training_leaves_out_regions_without_a_caption(write, row):
    found = read(write([annotation(1, caption="a dog"), row]))

    assert len(found.regions) == 1
    assert found.rejection_counts() == {"no_caption": 1}


def test_evaluation_keeps_regions_without_a_caption_and_counts_them(write):
    found = read(write([annotation(1, caption="a dog"), annotation(2)]), split="val")

    assert [region.caption for region in found.regions] == ["a dog", None]
    assert found.rejected == []
    assert found.noted["no_caption"] == 1


def test_attributes_that_a_mapping_leaves_out_are_unknown(write):
    rows = [
        annotation(1, caption="a dog", attributes={"wet": 1, "red": 0}),
        annotation(2, caption="a cat", attributes={"state:old/aged": True}),
        annotation(3, caption="a cow"),
    ]

    found = read(write(rows))

    assert [item.name for item in found.attributes] == ["wet", "red", "state:old/aged"]
    assert [item.parent_type for item in found.attributes] == ["other", "other", "state"]
    assert [region.attributes for region in found.regions] == [(1, 0, -1), (-1, -1, 1), None]


@pytest.mark.parametrize("given", [{"wet": "very"}, {"wet": 0.0}, {"wet": 2}, ["green"], 3])
def test_attributes_of_another_kind_do_not_cost_the_region(write, given):
    rows = [annotation(1, caption="a dog", attributes=given)]

    found = read(write(rows, attributes=["wet"]))

    assert found.regions[0].attributes is None
    assert found.noted["unreadable_attributes"] == 1
    assert found.attributes == ()


def test_attributes_may_be_those_of_ovad(write):
    info = {"type": "wetness", "parent_type": "state", "is_has_att": "has", "freq_set": "tail"}
    rows = [annotation(1, caption="a dog", attributes=["state:wet"])]

    found = read(write(rows, attributes=[{"name": "state:wet", **info}]))

    assert found.attributes[0].is_has == "has"
    assert found.regions[0].attributes == (1,)


def test_category_ids_without_a_list_of_categories_mean_nothing(write):
    found = read(write([annotation(1, caption="a dog", category_id=1)]))

    assert found.regions[0].category is None


def test_categories_that_no_annotation_has_are_no_vocabulary(write):
    found = read(write([annotation(1, caption="a dog")], categories=CATEGORIES))

    assert found.category_names == ()


def test_a_size_that_the_json_lacks_is_measured(write):
    images = [{"id": 1, "file_name": "1.png"}]

    found = read(write([annotation(1, caption="a dog")], images=images))

    assert (found.images[1].width, found.images[1].height) == (100, 80)


def test_an_image_that_cannot_be_measured_is_counted(write):
    path = write(
        [annotation(1, caption="a dog"), annotation(2, image_id=2, caption="a cat")],
        images=[{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "2.png"}],
    )
    (path.parent / "images/2.png").write_text("<html>")

    assert read(path).rejection_counts() == {"unreadable_image": 1}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (annotation(2, bbox=(1, 2, 3)), "unreadable_record"),
        (annotation(2, bbox=(1, 2, 3, "wide")), "unreadable_record"),
        (annotation(2, image_id=9), "unreadable_record"),
        (annotation(2, image_id=[1]), "unreadable_record"),
        (annotation(2.5), "unreadable_record"),
        (annotation(None), "unreadable_record"),
        (annotation(2, caption=["a", "b"]), "unreadable_record"),
        (annotation(2, caption="a cat", tags="cat"), "unreadable_record"),
        (annotation(2, caption="a cat", category_id=3), "unreadable_record"),
        (annotation(2, caption="a cat", bbox=(10, 20, 0, 5)), "empty_box"),
        (annotation(2, caption="a cat", bbox=(200, 20, 10, 5)), "outside_image"),
        (annotation(2, caption="a cat", image_id=2), "missing_image"),
        (annotation(1, caption="a cat"), "duplicate_id"),
    ],
)
def test_single_bad_annotations_are_counted(write, row, reason):
    good = [annotation(number, caption="a dog") for number in (1, *range(100, 120))]
    images = [{"id": n, "file_name": f"{n}.png", "width": 100, "height": 80} for n in (1, 2)]
    images[1]["file_name"] = "gone.png"

    found = read(write([*good, row], images=images, categories=CATEGORIES))

    assert len(found.regions) == 21
    assert found.rejection_counts()[reason] == 1


def test_an_annotation_with_an_unusable_box_stays_truth_in_evaluation(write):
    rows = [annotation(1, caption="a dog"), annotation(2, (0, 0, 0, 0), caption="a cat")]

    assert len(read(write(rows), split="val").truth()) == 2


def test_images_without_annotations_are_counted(write):
    images = [{"id": number, "file_name": f"{number}.png"} for number in (1, 2)]

    found = read(write([annotation(1, caption="a dog")], images=images))

    assert found.rejection_counts() == {"no_regions": 1}


SMALL = [{"id": 1, "file_name": "1.png", "width": 50, "height": 40}]
TURNED = [{"id": 1, "file_name": "1.png", "width": 80, "height": 100}]
CLASH = [{"id": 1, "file_name": name} for name in ("1.png", "2.png")]


@pytest.mark.parametrize(
    ("rows", "keys", "message"),
    [
        ([], {}, "the list 'annotations' is empty"),
        ({}, {}, "a list of objects 'annotations'"),
        ([annotation(1)], {"images": [3]}, "a list of objects 'images'"),
        (
            [{"id": 1, "image_id": 1, "caption": "a dog"}],
            {},
            r"none of 1 annotations has 'bbox' to mark a region; they have the keys \['caption'",
        ),
        ([annotation(1, phrase="a dog")], {}, r"has 'caption' to train on.*'phrase'"),
        ([annotation(n // 2, caption="a dog") for n in range(8)], {}, "4 of 8 annotations have"),
        (
            [annotation(n, box, caption="a dog") for n, box in enumerate(CORNERS)],
            {},
            r"3 of 3 boxes leave .* \[60.0, 40.0, 95.0, 75.0\] in .* corners x1, y1, x2, y2",
        ),
        ([annotation(1, (0.1, 0.2, 0.5, 1), caption="a dog")], {}, "shares of the image"),
        ([annotation(1, (90, 60, 30, 40), caption="a dog")], {}, "images of another size"),
        ([annotation(1, caption="a dog")], {"images": SMALL}, "100 x 80 pixels.* 50 x 40"),
        ([annotation(1, caption="a dog")], {"images": TURNED}, "EXIF"),
        ([annotation(1, caption="a dog")], {"images": CLASH}, "1 means '1.png' and '2.png'"),
        ([annotation(1, caption="a dog")], {"attributes": ["a", "a"]}, "attributes of the same"),
        ([annotation(1, caption="a dog")], {"attributes": {"a": 1}}, "attributes: expected a list"),
        (
            [annotation(1, caption="a dog")],
            {"images": [{"id": 1, "file_name": "train/1.png"}]},
            r"missing_image.*no file .*images/train/1\.png",
        ),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(write, rows, keys, message):
    with pytest.raises(DatasetError, match=message):
        read(write(rows, **keys))


def test_boxes_at_the_edge_are_no_corners(write):
    boxes = [(60, 40, 45, 41), (0, 0, 100, 80), (5, 5, 10, 10), (70, 5, 30, 9)]

    found = read(write([annotation(n, box, caption="a dog") for n, box in enumerate(boxes)]))

    assert len(found.regions) == 4
    assert found.noted["box_partly_outside"] == 1


def test_nothing_to_grade_is_said(write):
    with pytest.raises(
        DatasetError, match="none of 1 annotations has 'caption' or 'attributes' to"
    ):
        read(write([annotation(1, category_id=7)]), split="val")


@pytest.mark.parametrize(
    ("keys", "evaluator"),
    [
        ({"caption": "a dog", "attributes": ["wet"], "category_id": 7}, "dense_caption"),
        ({"attributes": ["wet"], "category_id": 7}, "attributes"),
        ({"category_id": 0}, "categories"),
    ],
)
def test_a_split_is_graded_by_what_it_has(write, tmp_path, keys, evaluator):
    write([annotation(1, **keys)], categories=CATEGORIES)

    (dataset,) = build(tmp_path, annotations={"quiz": "own.json"}).values()

    assert dataset.evaluator == evaluator
    assert dataset.name == "custom-quiz"
    assert not dataset.train


def test_one_json_can_be_graded_in_several_ways(write, tmp_path):
    write([annotation(1, caption="a dog", category_id=7)], categories=CATEGORIES)

    datasets = build(
        tmp_path,
        annotations={"train": "own.json", "val": "own.json", "names": "own.json"},
        evaluators={"val": "reg", "names": "categories"},
    )

    assert [datasets[split].evaluator for split in ("val", "names")] == ["reg", "categories"]
    assert datasets["train"].train
    assert datasets["train"][0]["captions"] == ["a dog"]


def test_paths_are_seen_from_the_current_folder_without_a_root(write, tmp_path, monkeypatch):
    write([annotation(1, caption="a dog")])
    monkeypatch.chdir(tmp_path)

    datasets = build(tmp_path, root=None, annotations={"train": "own.json"})

    assert len(datasets["train"]) == 1


def test_a_split_that_is_set_to_null_or_not_named_is_not_read(write, tmp_path):
    write([annotation(1, caption="a dog")])
    files = {"train": "own.json", "val": None, "test": "absent.json"}

    datasets = build(tmp_path, annotations=files, splits=["train"])

    assert list(datasets) == ["train"]


def test_tags_of_the_annotations_are_kept(write, tmp_path):
    rows = [annotation(1, caption="a dog", tags=["wet dog"]), annotation(2, caption="a dog")]
    write(rows)
    (tmp_path / "tags.txt").write_text("dog\nwet dog", encoding="utf-8")

    datasets = build(tmp_path, annotations={"train": "own.json"}, tags=str(tmp_path / "tags.txt"))

    assert [datasets["train"][row]["tags"] for row in (0, 1)] == [[["wet dog"]], [["dog"]]]


@pytest.mark.parametrize("max_images", [None, 1])
def test_tags_that_the_list_lacks_are_named(write, tmp_path, max_images):
    write([annotation(1, caption="a dog", tags=["dog", "hound"])])
    (tmp_path / "tags.txt").write_text("dog", encoding="utf-8")
    info = {"tags": str(tmp_path / "tags.txt"), "max_images": max_images}

    with pytest.raises(DatasetError, match=r"1 tags of the annotations.*\['hound'\]"):
        build(tmp_path, annotations={"train": "own.json"}, **info)


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({}, "annotations: name a json for each split"),
        ({"annotations": {"train": "absent.json"}}, r"annotations\.train: no file .*absent\.json"),
        ({"annotations": {"train": 3}}, r"annotations\.train: expected the path"),
        ({"annotations": {"val": "own.json"}, "evaluators": {"test": "reg"}}, r"no split \['test'"),
        ({"annotations": {"val": "own.json"}, "evaluators": {"val": "bleu"}}, "evaluator"),
        ({"annotations": {"val": "own.json"}, "splits": ["train"]}, r"unknown \['train'\]"),
        ({"annotations": {"val": "own.json"}, "images": {"storage": "no"}}, r"images\.storage: no"),
    ],
)
def test_a_wrong_setting_is_named(write, tmp_path, info, message):
    write([annotation(1, caption="a dog")])

    with pytest.raises(ValueError, match=message):
        build(tmp_path, **info)


def test_a_prepared_folder_is_enough(write, tmp_path):
    write([annotation(1, caption="a dog")])
    builder_class = registry.get_builder_class("custom_region")
    info = {"root": str(tmp_path), "annotations": {"val": "own.json"}}
    config = OmegaConf.load(builder_class.default_config_path()).datasets.custom_region
    builder = builder_class(OmegaConf.merge(config, {"build_info": info}))
    prepare(builder.raw(builder.info()), ["val"], tmp_path / "prepared")
    (tmp_path / "own.json").unlink()

    datasets = build(tmp_path, prepared=str(tmp_path / "prepared"))

    assert list(datasets) == ["val"]
    assert datasets["val"][0]["captions"] == ["a dog"]


def test_what_was_found_is_logged(write, caplog):
    with caplog.at_level(logging.INFO):
        read(write([annotation(1, caption="a dog", tags=["dog"]), annotation(2, caption="a cat")]))

    assert "of 2 annotations have {'caption': 2, 'tags': 1}" in caplog.text
