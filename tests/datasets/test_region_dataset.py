from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from lavis_dynrefer.datasets.region_dataset import RegionDataset, SampleError, read_image
from lavis_dynrefer.structures import ImageRecord, RegionRecord, RegionSet

VIEWS, SIDE = 2, 4


def cut(image, boxes):
    """Stands where a LAVIS processor stands: every view is the mean colour of the image."""
    assert image.mode == "RGB"
    colour = torch.from_numpy(np.asarray(image).reshape(-1, 3).mean(axis=0)).to(torch.uint8)
    count = len(boxes)
    return {
        "views": colour.view(1, 1, 3, 1, 1).expand(count, VIEWS, 3, SIDE, SIDE),
        "boxes": boxes[:, None].expand(count, VIEWS, 4),
        "scales": torch.zeros(count, VIEWS),
        "routes": {"caption": torch.zeros(count, 1, dtype=torch.long)},
    }


@pytest.fixture
def region_set(tmp_path):
    """Image 1, red, with regions 10 and 11; image 2, blue, with region 20."""
    images = {}
    for number, colour in ((1, "red"), (2, "blue")):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (40, 30), colour).save(path)
        images[number] = ImageRecord(number, str(path), 40, 30)
    regions = [
        RegionRecord(10, 1, (0, 0, 10, 10), "A Dog!"),
        RegionRecord(20, 2, (5, 5, 20, 20), "a cat"),
        RegionRecord(11, 1, (10, 10, 40, 30), "two dogs", tags=("pet",)),
    ]
    return RegionSet("demo", "val", images, regions)


@pytest.fixture
def build(region_set):
    def _build(**options):
        defaults = {"train": False, "tagger": lambda caption: caption.split()[:1]}
        return RegionDataset(region_set, cut, str.lower, **{**defaults, **options})

    return _build


def test_training_serves_one_region_per_sample(build):
    dataset = build(train=True)

    assert len(dataset) == 3
    assert dataset[1]["region_ids"] == [20]
    assert dataset[1]["views"].shape == (1, VIEWS, 3, SIDE, SIDE)


def test_evaluation_serves_one_image_with_all_its_regions(build):
    dataset = build()

    assert len(dataset) == 2
    assert dataset[0]["region_ids"] == [10, 11]
    assert dataset[1]["region_ids"] == [20]


def test_evaluation_decodes_an_image_once(region_set):
    seen = []
    dataset = RegionDataset(
        region_set, lambda *parts: seen.append(parts) or cut(*parts), str, train=False
    )

    _ = dataset[0]

    assert len(seen) == 1
    assert seen[0][1].tolist() == [[0, 0, 10, 10], [10, 10, 40, 30]]


def test_captions_are_prepared_for_training_only(build):
    assert build(train=True)[0]["captions"] == ["a dog!"]
    assert build()[0]["captions"] == ["A Dog!", "two dogs"]


def test_tags_come_from_the_region_or_else_from_its_caption(build):
    assert build()[0]["tags"] == [["A"], ["pet"]]


def test_a_batch_joins_images_along_the_regions(build):
    dataset = build()

    batch = dataset.collater([dataset[0], dataset[1]])

    assert batch["views"].shape == (3, VIEWS, 3, SIDE, SIDE)
    assert batch["views"].dtype == torch.uint8
    assert batch["views"][:, 0, :, 0, 0].tolist() == [[255, 0, 0], [255, 0, 0], [0, 0, 255]]
    assert batch["boxes"].shape == (3, VIEWS, 4)
    assert batch["scales"].shape == (3, VIEWS)
    assert batch["routes"]["caption"].shape == (3, 1)
    assert batch["image_boxes"].tolist() == [[0, 0, 10, 10], [10, 10, 40, 30], [5, 5, 20, 20]]
    assert batch["regions_per_image"] == [2, 1]
    assert batch["region_ids"] == [10, 11, 20]
    assert batch["image_ids"] == [1, 1, 2]
    assert batch["failed"] == []


def test_a_loader_with_workers_serves_every_region(build):
    dataset = build(train=True)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=2, num_workers=1, collate_fn=dataset.collater
    )

    assert [number for batch in loader for number in batch["region_ids"]] == [10, 20, 11]


def damage_first_image(region_set, content):
    with open(region_set.images[1].path, "wb") as file:
        file.write(content)


def test_an_unreadable_image_stops_by_default(build, region_set):
    damage_first_image(region_set, b"<html>")

    with pytest.raises(SampleError, match=r"image 1, .*1\.png.*set on_error: skip") as caught:
        _ = build()[0]

    assert caught.value.reason == "unreadable_image"


def test_a_skipped_image_is_named_and_never_replaced(build, region_set):
    damage_first_image(region_set, b"")
    dataset = build(on_error="skip")

    batch = dataset.collater([dataset[0], dataset[1]])

    assert batch["region_ids"] == [20]
    assert batch["regions_per_image"] == [0, 1]
    assert [(row["region_id"], row["reason"]) for row in batch["failed"]] == [
        (10, "unreadable_image"),
        (11, "unreadable_image"),
    ]


def test_an_evaluation_batch_may_have_no_region_at_all(build, region_set):
    damage_first_image(region_set, b"")
    dataset = build(on_error="skip")

    batch = dataset.collater([dataset[0]])

    assert batch["views"].shape == (0, VIEWS, 3, SIDE, SIDE)
    assert batch["image_boxes"].shape == (0, 4)
    assert len(batch["failed"]) == 2


def test_a_training_batch_without_any_region_stops(build, region_set):
    damage_first_image(region_set, b"")
    dataset = build(train=True, on_error="skip")

    with pytest.raises(SampleError, match="no sample of a batch is usable"):
        dataset.collater([dataset[0], dataset[2]])


def test_a_region_outside_of_the_real_image_fails_alone(build, region_set):
    Image.new("RGB", (9, 9), "red").save(region_set.images[1].path)

    sample = build(on_error="skip")[0]

    assert sample["region_ids"] == [10]
    assert [(row["region_id"], row["reason"]) for row in sample["failed"]] == [
        (11, "outside_image")
    ]
    with pytest.raises(SampleError, match=r"has \(9, 9\) pixels, annotated \(40, 30\)"):
        _ = build()[0]


def test_a_processor_that_refuses_an_image_is_a_failed_image(region_set):
    def refuse(image, boxes):
        if len(boxes):
            raise ValueError("too small")
        return cut(image, boxes)

    sample = RegionDataset(region_set, refuse, str, train=False, on_error="skip")[0]

    assert [row["reason"] for row in sample["failed"]] == ["unusable_view", "unusable_view"]


def test_a_sample_error_survives_the_way_from_a_worker():
    error = pickle.loads(pickle.dumps(SampleError("missing_image", "image 1")))

    assert (error.reason, error.detail) == ("missing_image", "image 1")


def test_lavis_finds_what_it_asks_a_dataset_for(build, region_set):
    dataset = build(evaluator="reg")

    assert dataset.region_set is region_set
    assert (dataset.name, dataset.evaluator) == ("demo", "reg")


@pytest.mark.parametrize("options", [{"evaluator": "bleu"}, {"on_error": "ignore"}])
def test_unknown_options_are_refused(build, options):
    with pytest.raises(ValueError, match="expected one of"):
        build(**options)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("gray.jpg", (160, 115)),
        ("cmyk.jpg", (160, 115)),
        ("palette.png", (160, 115)),
        ("bilevel.png", (160, 115)),
        ("progressive.jpg", (160, 115)),
        ("png_rgba_named.jpg", (160, 115)),
        ("exif_orient6.jpg", (160, 115)),
        ("one_pixel.jpg", (1, 1)),
        ("width1.jpg", (1, 115)),
        ("panorama_600x4.jpg", (600, 4)),
    ],
)
def test_odd_images_are_read_as_stored(shared, name, size):
    image = read_image(ImageRecord(1, str(shared / "fixtures/tricky/images" / name), *size))

    assert image.mode == "RGB"
    assert image.size == size


def test_a_16_bit_image_keeps_its_shades(shared):
    path = shared / "fixtures/tricky/images/gray16.png"

    image = read_image(ImageRecord(1, str(path), 1, 1))

    expected = np.asarray(Image.open(path)) >> 8
    assert np.array_equal(np.asarray(image)[..., 0], expected)
    assert np.asarray(image).min() < 255


@pytest.mark.parametrize("name", ["truncated.jpg", "zero_bytes.jpg", "not_an_image.jpg"])
def test_damaged_images_are_named(shared, name, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as importing LAVIS leaves it
    record = ImageRecord(1, str(shared / "fixtures/tricky/images" / name), 160, 115)

    with pytest.raises(SampleError, match=name) as caught:
        read_image(record)

    assert caught.value.reason == "unreadable_image"
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_an_image_that_vanished_is_missing():
    with pytest.raises(SampleError) as caught:
        read_image(ImageRecord(1, "/nowhere/1.jpg", 160, 115))

    assert caught.value.reason == "missing_image"


def test_an_image_of_absurd_size_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    Image.new("L", (100, 100)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)

    with pytest.raises(SampleError, match="large"):
        read_image(ImageRecord(1, str(path), 100, 100))
