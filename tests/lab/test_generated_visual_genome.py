from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from lavis_dynrefer.datasets.sources import visual_genome
from lavis_dynrefer.lab.benchmarks import generated_visual_genome as generated

FILES = ("region_descriptions.json", "image_data.json", "densecap_splits.json")
REGION_KEYS = ["region_id", "width", "height", "image_id", "phrase", "y", "x"]
MANY = 20_000


def loaded(folder):
    return [json.loads((folder / name).read_text(encoding="utf-8")) for name in FILES]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vg")
    generated.write_visual_genome(folder, images=50, regions=2000)
    return folder


@pytest.fixture(scope="module")
def files(root):
    return loaded(root)


@pytest.fixture(scope="module")
def phrases():
    return generated.draw_phrases(MANY, np.random.default_rng(0))


def test_writes_the_requested_number_of_images_and_regions(files):
    entries, rows, _ = files

    assert len(entries) == len(rows) == 50
    assert sum(len(entry["regions"]) for entry in entries) == 2000


def test_rows_have_the_keys_of_version_1_2_in_their_order(files, shared):
    folder = shared / "fixtures" / "vg_raw_5images" / "vg1.2"
    real_entry, real_row = (json.loads((folder / name).read_text())[0] for name in FILES[:2])
    entries, rows, _ = files

    assert list(entries[0]) == list(real_entry)
    assert list(entries[0]["regions"][0]) == list(real_entry["regions"][0]) == REGION_KEYS
    assert list(rows[0]) == list(real_row)


def test_region_ids_are_unique_but_unsorted(files):
    ids = [region["region_id"] for entry in files[0] for region in entry["regions"]]

    assert sorted(ids) == list(range(1, 2001))
    assert ids != sorted(ids)


def test_regions_name_their_image_and_both_files_have_one_order(files):
    entries, rows, _ = files

    assert [entry["id"] for entry in entries] == [row["image_id"] for row in rows]
    assert all(
        region["image_id"] == entry["id"] for entry in entries for region in entry["regions"]
    )


def test_splits_are_disjoint_and_leave_out_some_images(files):
    _, rows, splits = files
    chosen = [image_id for split in splits.values() for image_id in split]

    assert {name: len(ids) for name, ids in splits.items()} == {"train": 35, "val": 2, "test": 2}
    assert len(set(chosen)) == len(chosen) == 39
    assert set(chosen) < {row["image_id"] for row in rows}


def test_the_seed_determines_the_files(root, tmp_path):
    for seed in (0, 1):
        generated.write_visual_genome(tmp_path / str(seed), images=50, regions=2000, seed=seed)

    assert loaded(tmp_path / "0") == loaded(root)
    assert loaded(tmp_path / "1") != loaded(root)


def test_a_finished_folder_is_not_written_again(root):
    before = (root / FILES[0]).stat().st_mtime_ns

    generated.write_visual_genome(root, images=3, regions=3)

    assert (root / FILES[0]).stat().st_mtime_ns == before


def test_rejects_too_few_images_for_three_splits(tmp_path):
    with pytest.raises(ValueError, match="at least 3, got 2"):
        generated.write_visual_genome(tmp_path, images=2, regions=9)


def test_the_reader_finds_every_image_file_and_keeps_nearly_all_regions(root, files):
    entries, _, splits = files
    chosen = {image_id for split in splits.values() for image_id in split}
    given = sum(len(entry["regions"]) for entry in entries if entry["id"] in chosen)

    found = visual_genome.read_visual_genome(*(root / name for name in FILES), root)

    assert 0.97 * given < sum(len(split.regions) for split in found.values()) <= given
    assert not any("missing_image" in split.rejection_counts() for split in found.values())


def test_phrases_are_as_long_as_real_ones(phrases):
    lengths = [len(phrase.split()) for phrase in phrases]

    assert np.mean(lengths) == pytest.approx(5.3, abs=0.3)  # 5.06 in images 1 to 5
    assert max(lengths) > visual_genome.MAX_CAPTION_WORDS


@pytest.mark.parametrize(
    ("share", "has"),
    [
        (0.26, lambda phrase: phrase != phrase.lower()),
        (0.01, lambda phrase: phrase.endswith("\n")),
        (0.07, lambda phrase: phrase != phrase.strip()),
        (0.05, lambda phrase: phrase.strip().endswith(".")),
    ],
)
def test_phrases_are_as_irregular_as_real_ones(phrases, share, has):
    assert np.mean([has(phrase) for phrase in phrases]) == pytest.approx(share, rel=0.2)


def test_boxes_are_invalid_as_often_as_real_ones():
    sizes = np.tile([500, 375], (1_000_000, 1))

    boxes = generated.draw_boxes(sizes, np.random.default_rng(0))

    assert (boxes[:, 0] < 0).mean() == pytest.approx(5654 / 5408689, rel=0.2)
    assert 0 < (boxes[:, 1] == -1000).sum() < 30
    assert 0 < (boxes[:, 3] == 0).sum() < 30


def test_all_other_boxes_lie_inside_their_image():
    sizes = np.tile([[500, 375], [375, 500]], (5000, 1))

    boxes = generated.draw_boxes(sizes, np.random.default_rng(0))

    right = (boxes[:, :2] >= 0).all(axis=1)
    assert ((boxes[:, :2] + boxes[:, 2:])[right] <= sizes[right]).all()
    assert (boxes[right, 2] >= 1).all()


def test_painted_images_have_the_requested_size():
    file = generated.paint_jpeg(np.random.default_rng(0), 50, 40)

    image = Image.open(io.BytesIO(file))
    assert (image.format, image.size) == ("JPEG", (50, 40))
