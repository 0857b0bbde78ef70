from __future__ import annotations

import json

import pytest
from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image

from lavis_dynrefer.datasets.prepared import prepare
from lavis_dynrefer.datasets.sources.custom_json import read_custom
from lavis_dynrefer.datasets.sources.raw_files import DatasetError

CATEGORIES = [{"id": 0, "name": "dog"}, {"id": 7, "name": "tennis racket"}]


def annotation(number, bbox=(10, 20, 30, 40), image_id=1, **keys):
    return {"id": number, "image_id": image_id, "bbox": list(bbox), **keys}


def dog(number, bbox=(10, 20, 30, 40), **keys):
    return annotation(number, bbox, **{"caption": "a dog", **keys})


def image(number, **keys):
    return {"id": number, "file_name": f"{number}.png", "width": 100, "height": 80, **keys}


@pytest.fixture
def write(tmp_path):
    """Writes a json about image 1; there are files of two images of 100 x 80 pixels."""
    (tmp_path / "images").mkdir()
    for number in (1, 2):
        Image.new("RGB", (100, 80)).save(tmp_path / f"images/{number}.png")

    def _write(rows, **keys):
        path = tmp_path / "own.json"
        document = {"images": [image(1)], "annotations": rows, **keys}
        path.write_text(json.dumps(document), encoding="utf-8")
        return path

    return _write


@pytest.fixture
def read(write, tmp_path):
    """Writes a json and reads it."""

    def _read(rows, split="train", **keys):
        return read_custom(write(rows, **keys), tmp_path / "images", name="own", split=split)

    return _read


def test_all_fields_of_an_annotation_are_read(read):
    row = annotation(
        "5", caption="A Dog.", tags=["dog"], category_id=7, attributes=["wet"], iscrowd=1
    )

    found = read([row], categories=CATEGORIES, attributes=["red", "wet"])

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


def test_regions_without_a_caption_are_left_out_of_training_only(read):
    rows = [dog(1), annotation(2), dog(3, caption=" ")]

    trained, graded = read(rows), read(rows, split="val")

    assert [region.region_id for region in trained.regions] == [1]
    assert trained.rejection_counts() == {"no_caption": 2}
    assert [region.caption for region in graded.regions] == ["a dog", None, None]
    assert (graded.rejected, graded.noted) == ([], {"no_caption": 2})


def test_attributes_missing_in_a_mapping_are_unknown(read):
    rows = [
        dog(1, attributes={"wet": 1, "red": 0}),
        dog(2, attributes={"state:old/aged": True}),
        dog(3),
    ]

    found = read(rows)

    assert [item.name for item in found.attributes] == ["wet", "red", "state:old/aged"]
    assert [item.parent_type for item in found.attributes] == ["other", "other", "state"]
    assert [region.attributes for region in found.regions] == [(1, 0, -1), (-1, -1, 1), None]


@pytest.mark.parametrize("given", [{"wet": "very"}, {"wet": 0.0}, {"wet": 2}, ["green"], 3])
def test_a_region_with_invalid_attributes_is_kept_without_them(read, given):
    found = read([dog(1, attributes=given)], attributes=["wet"])

    assert found.regions[0].attributes is None
    assert found.noted["unreadable_attributes"] == 1
    assert found.attributes == ()


def test_attributes_may_be_those_of_ovad(read):
    info = {"type": "wetness", "parent_type": "state", "is_has_att": "has", "freq_set": "tail"}

    found = read([dog(1, attributes=["state:wet"])], attributes=[{"name": "state:wet", **info}])

    assert found.attributes[0].is_has == "has"
    assert found.regions[0].attributes == (1,)


def test_category_ids_need_a_list_of_categories_and_the_list_needs_ids(read):
    assert read([dog(1, category_id=1)]).regions[0].category is None
    assert read([dog(1)], categories=CATEGORIES).category_names == ()


def test_sizes_missing_in_the_json_are_measured(read, tmp_path):
    images = [{"id": number, "file_name": f"{number}.png"} for number in (1, 2)]
    (tmp_path / "images/2.png").write_text("<html>", encoding="utf-8")

    found = read([dog(1), dog(2, image_id=2)], images=images)

    assert (found.images[1].width, found.images[1].height) == (100, 80)
    assert found.rejection_counts() == {"unreadable_image": 1}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (annotation(2, (1, 2, 3)), "unreadable_record"),
        (annotation(2, image_id=9), "unreadable_record"),
        (annotation(None), "unreadable_record"),
        (dog(2, caption=["a", 3]), "unreadable_record"),
        (dog(2, tags="cat"), "unreadable_record"),
        (dog(2, category_id=3), "unreadable_record"),
        (dog(2, image_id=2), "missing_image"),
        (dog(2, image_id=3), "no_size"),
        (dog(2, image_id=4), "other_size"),
        (dog(1), "duplicate_id"),
    ],
)
def test_single_bad_annotations_are_counted(read, row, reason):
    good = [dog(number) for number in (1, *range(100, 120))]
    images = [image(1), image(2, file_name="gone.png"), image(3, file_name="1.png", width="wide")]
    images.append(image(4, file_name="1.png", width=50, height=40))

    found = read([*good, row], images=images, categories=CATEGORIES)

    assert len(found.regions) == 21
    assert found.rejection_counts()[reason] == 1


def test_ids_may_be_texts(read):
    images = [image("img_1", file_name="1.png"), image("2")]
    rows = [dog("a", image_id="img_1", category_id="d"), dog(7, image_id=2, caption="two")]

    found = read(rows, images=images, categories=[{"id": "d", "name": "dog"}])

    assert [(one.region_id, one.image_id, one.category) for one in found.regions] == [
        (1, 1, "dog"),
        (2, 2, None),
    ]


def test_several_captions_of_a_box_are_several_regions(read):
    found = read([dog(4, caption=["a dog", "an animal"]), dog(7, captions=["it"])])

    assert [(one.region_id, one.caption) for one in found.regions] == [
        (4, "a dog"),
        (8, "an animal"),
        (7, "a dog"),
    ]


def test_a_mask_gives_the_box_that_is_missing(read):
    row = {**dog(1), "bbox": None, "segmentation": [[10, 20, 40, 20, 40, 60]]}

    assert read([row]).regions[0].box == (10, 20, 40, 60)


@pytest.mark.parametrize(
    "keys",
    [
        {"file_name": "IMAGES\\1.PNG"},
        {"file_name": None, "coco_url": "http://images.cocodataset.org/val2017/1.png"},
        {"file_name": "../../label-studio/media/upload/4/0a1b2c3d-1.png"},
    ],
)
def test_images_are_found_by_the_rule_of_files_of_boxes(write, tmp_path, keys):
    folder = tmp_path if "IMAGES" in str(keys) else tmp_path / "images"

    found = read_custom(
        write([dog(1)], images=[image(1, **keys)]), folder, name="own", split="train"
    )

    assert found.images[1].path == str(tmp_path / "images/1.png")


def test_files_of_annotation_tools_are_read(tmp_path, write):
    write([])
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/1.txt").write_text("0 0.25 0.5 0.3 0.5\n0 9\n", encoding="utf-8")
    (tmp_path / "labels/2.txt").write_text("", encoding="utf-8")

    found = read_custom(tmp_path / "labels", tmp_path / "images", name="own", split="val")

    (region,) = found.regions
    assert [round(value, 4) for value in region.box] == [10, 20, 40, 60]
    assert (region.category, found.noted["no_caption"]) == ("class 0", 1)
    assert found.rejection_counts() == {"unreadable_record": 1, "no_regions": 1}


def test_images_without_annotations_are_counted(read):
    assert read([dog(1)], images=[image(1), image(2)]).rejection_counts() == {"no_regions": 1}


@pytest.mark.parametrize(
    ("rows", "keys", "message"),
    [
        ([], {}, "the list 'annotations' is empty"),
        ({}, {}, "a list of objects 'annotations'"),
        ([annotation(1)], {"images": [3]}, "a list of objects 'images'"),
        (
            [{"id": 1, "image_id": 1, "caption": "a dog"}],
            {},
            r"none of 1 annotations has 'bbox' or 'segmentation' to mark .*keys \['caption'",
        ),
        ([annotation(1, phrase="a dog")], {}, r"has 'caption' to train on.*'phrase'"),
        ([dog(n // 2) for n in range(8)], {}, "4 of 8 annotations have"),
        (
            [
                dog(n, box)
                for n, box in enumerate([(60, 40, 95, 75), (50, 30, 80, 70), (70, 45, 99, 79)])
            ],
            {},
            r"3 of 3 boxes leave .* \[60.0, 40.0, 95.0, 75.0\] in .* corners x1, y1, x2, y2",
        ),
        ([dog(1, (0.1, 0.2, 0.5, 1))], {}, "fractions of the image"),
        ([dog(1, (90, 60, 30, 40))], {}, "images of another size"),
        (
            [dog(1)],
            {"images": [image(1, width=50, height=40)]},
            "50 x 40 pixels, it is 100 x 80",
        ),
        ([dog(1)], {"images": [image(1, width=80, height=100)]}, "EXIF"),
        (
            [dog(1)],
            {"images": [image(1), image(1, file_name="2.png")]},
            "1 means '1.png' and '2.png'",
        ),
        ([dog(1)], {"attributes": ["a", "a"]}, "attributes of the same"),
        ([dog(1)], {"attributes": {"a": 1}}, "attributes: expected a list"),
        (
            [dog(1)],
            {"images": [image(1, file_name="train/1.png")]},
            r"missing_image.*no file .*images/train/1\.png",
        ),
    ],
)
def test_a_file_with_a_general_mistake_is_refused(read, rows, keys, message):
    with pytest.raises(DatasetError, match=message):
        read(rows, **keys)


def test_boxes_at_the_edge_are_not_taken_for_corners(read):
    boxes = [(60, 40, 45, 41), (0, 0, 100, 80), (5, 5, 10, 10), (70, 5, 30, 9)]

    found = read([dog(n, box) for n, box in enumerate(boxes)])

    assert len(found.regions) == 4
    assert found.noted["box_partly_outside"] == 1


def test_a_file_with_nothing_to_grade_is_refused(read):
    message = "none of 1 annotations has 'caption' or 'attributes' to"

    with pytest.raises(DatasetError, match=message):
        read([annotation(1, category_id=7)], split="val")


# ---- as a dataset -------------------------------------------------------------------------------


@pytest.fixture
def builder(tmp_path):
    def _builder(**info):
        builder_class = registry.get_builder_class("custom_region")
        default = OmegaConf.load(builder_class.default_config_path())
        own = {"build_info": {"root": str(tmp_path), "tags": None, **info}}
        model = {"vision": {"image_size": 28}, "region": {"num_views": 2}}
        config = OmegaConf.merge(default, {"datasets": {"custom_region": own}, "model": model})
        return builder_class(config.datasets.custom_region)

    return _builder


@pytest.fixture
def build(builder):
    return lambda **info: builder(**info).build_datasets()


@pytest.mark.parametrize(
    ("keys", "evaluator"),
    [
        ({"caption": "a dog", "attributes": ["wet"], "category_id": 7}, "dense_caption"),
        ({"attributes": ["wet"], "category_id": 7}, "attributes"),
        ({"category_id": 0}, "categories"),
    ],
)
def test_a_split_is_graded_by_what_it_has(write, build, keys, evaluator):
    write([annotation(1, **keys)], categories=CATEGORIES)

    (dataset,) = build(annotations={"quiz": "own.json"}).values()

    assert dataset.evaluator == evaluator
    assert dataset.name == "custom-quiz"
    assert not dataset.train


def test_one_json_can_be_graded_in_several_ways(write, build):
    write([dog(1, category_id=7)], categories=CATEGORIES)

    datasets = build(
        annotations={"train": "own.json", "val": "own.json", "names": "own.json"},
        evaluators={"val": "reg", "names": "categories"},
    )

    assert [datasets[split].evaluator for split in ("val", "names")] == ["reg", "categories"]
    assert datasets["train"].train
    assert datasets["train"][0]["captions"] == ["a dog"]


def test_paths_are_relative_to_the_current_folder_without_a_root(
    write, build, tmp_path, monkeypatch
):
    write([dog(1)])
    monkeypatch.chdir(tmp_path)

    assert len(build(root=None, annotations={"train": "own.json"})["train"]) == 1


def test_null_or_unselected_splits_are_not_read(write, build):
    write([dog(1)])
    files = {"train": "own.json", "val": None, "test": "absent.json"}

    assert list(build(annotations=files, splits=["train"])) == ["train"]


def test_tags_of_the_annotations_are_kept(write, build, tmp_path):
    write([dog(1, tags=["wet dog"]), dog(2)])
    (tmp_path / "tags.txt").write_text("dog\nwet dog", encoding="utf-8")

    dataset = build(annotations={"train": "own.json"}, tags=str(tmp_path / "tags.txt"))["train"]

    assert [dataset[row]["tags"] for row in (0, 1)] == [[[1]], [[0]]]


@pytest.mark.parametrize("max_images", [None, 1])
def test_tags_missing_in_the_list_are_refused(write, build, tmp_path, max_images):
    write([dog(1, tags=["dog", "hound"])])
    (tmp_path / "tags.txt").write_text("dog", encoding="utf-8")
    info = {"tags": str(tmp_path / "tags.txt"), "max_images": max_images}

    with pytest.raises(DatasetError, match=r"1 tags of the annotations.*\['hound'\]"):
        build(annotations={"train": "own.json"}, **info)


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({}, "annotations: name a json for each split"),
        ({"annotations": {"train": "absent.json"}}, r"annotations\.train: no file .*absent\.json"),
        ({"annotations": {"train": 3}}, r"annotations\.train: expected a string, got 3"),
        ({"annotations": {"val": "own.json"}, "evaluators": {"test": "reg"}}, r"no split \['test'"),
        ({"annotations": {"val": "own.json"}, "evaluators": {"val": "bleu"}}, "evaluators.val: "),
        ({"annotations": {"val": "own.json"}, "splits": ["train"]}, r"unknown \['train'\]"),
        ({"annotations": {"val": "own.json"}, "images": {"storage": "no"}}, r"images\.storage: no"),
    ],
)
def test_a_wrong_setting_is_named_once(write, build, info, message):
    write([dog(1)])
    with pytest.raises(ValueError, match=message) as caught:
        build(**info)
    assert str(caught.value).count("datasets.custom_region.build_info") == 1


def test_a_prepared_folder_is_enough(write, builder, build, tmp_path):
    path = write([dog(1)])
    own = builder(annotations={"val": "own.json"})
    prepare(own.raw(own.info()), ["val"], tmp_path / "prepared")
    path.unlink()

    datasets = build(prepared=str(tmp_path / "prepared"))
    assert list(datasets) == ["val"]
    assert datasets["val"][0]["captions"] == ["a dog"]
