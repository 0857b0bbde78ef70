from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from lavis_dynrefer.datasets.sources.coco_layout import read_coco_instances
from lavis_dynrefer.datasets.sources.ovad import read_ovad
from lavis_dynrefer.datasets.sources.visual_genome import read_visual_genome
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.synthetic.scene_dataset import read_truth, split_sizes, write_dataset
from lavis_dynrefer.synthetic.scene_drawing import render
from lavis_dynrefer.synthetic.scene_layout import make_scene
from lavis_dynrefer.synthetic.scene_world import CATEGORIES


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "data"
    write_dataset(folder, scenes=10, seed=4)
    return folder


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_sizes_are_four_fifths_and_two_tenths():
    assert split_sizes(100) == {"train": 80, "val": 10, "test": 10, "val2017": 10}
    assert split_sizes(10) == {"train": 8, "val": 1, "test": 1, "val2017": 4}


def test_rejects_too_few_scenes():
    with pytest.raises(ValueError, match="at least 3 scenes"):
        split_sizes(2)


def test_splits_are_disjoint_and_have_their_images(root):
    splits = load(root / "vg/densecap_splits.json")
    ids = [number for numbers in splits.values() for number in numbers]
    images = {int(path.stem) for path in (root / "vg/images/VG_100K").iterdir()}
    assert len(ids) == len(set(ids)) == 10
    assert images == set(ids)


def test_coco_images_are_not_those_of_visual_genome(root):
    coco = load(root / "coco/annotations/instances_val2017.json")["images"]
    names = {path.name for path in (root / "coco/val2017").iterdir()}
    assert {row["file_name"] for row in coco} == names
    assert not {row["id"] for row in coco} & {row["id"] for row in vg_rows(root)}


def vg_rows(root):
    return load(root / "vg/region_descriptions.json")


def test_files_have_the_keys_of_the_published_ones(root, published_keys):
    for dataset, name in [
        ("coco", "coco/annotations/instances_val2017.json"),
        ("ovad", "ovad/ovad2000.json"),
    ]:
        ours, theirs = load(root / name), published_keys[dataset]
        assert set(ours) == set(theirs["document"])
        assert set(ours["categories"][0]) == set(theirs["categories"])
        assert set(ours["images"][0]) == set(theirs["images"])


def test_ovad_ids_are_list_positions(root):
    rows = load(root / "ovad/ovad2000.json")["annotations"]
    assert [row["id"] for row in rows] == list(range(len(rows)))


def test_images_are_the_scenes_up_to_jpeg(root):
    stored = np.asarray(Image.open(root / "vg/images/VG_100K/1.jpg"), dtype=float)
    drawn = np.asarray(render(make_scene(4, 1)), dtype=float)
    assert np.abs(stored - drawn).mean() < 3  # of 255, quality 95


def test_images_have_full_colour_resolution(root):
    with Image.open(root / "vg/images/VG_100K/1.jpg") as image:
        assert JpegImagePlugin.get_sampling(image) == 0  # 4:4:4, no smaller colour planes


def test_attribute_vectors_agree_with_the_captions(root):
    ovad = load(root / "ovad/ovad2000.json")
    names = [row["name"].split(":")[1] for row in ovad["attributes"]]
    truth = list(read_truth(root, "val2017").values())
    present = [
        {name for name, value in zip(names, row["att_vec"]) if value == 1}
        for row in ovad["annotations"]
    ]
    slots = ("colour", "pattern", "size", "finish", "border", "pose")
    assert present == [{row["facts"][s] for s in slots if row["facts"][s]} for row in truth]
    assert [row["phrase"] for row in truth if row["facts"]["colour"] not in row["phrase"]] == []


def test_the_visual_genome_reader_accepts_every_region(root):
    vg = root / "vg"
    files = [
        vg / f"{name}.json" for name in ("region_descriptions", "image_data", "densecap_splits")
    ]
    found = read_visual_genome(*files, vg / "images")
    written = {split: read_truth(root, split) for split in found}
    assert {split: regions.rejection_counts() for split, regions in found.items()} == {
        "train": {},
        "val": {},
        "test": {},
    }
    assert {
        s: {r.region_id: r.caption for r in regions.regions} for s, regions in found.items()
    } == {s: {key: row["phrase"] for key, row in rows.items()} for s, rows in written.items()}


@pytest.mark.parametrize(
    ("read", "annotations"),
    [
        (read_coco_instances, "coco/annotations/instances_val2017.json"),
        (read_ovad, "ovad/ovad2000.json"),
    ],
)
def test_the_coco_and_ovad_readers_accept_every_object(root, read, annotations):
    found = read(root / annotations, root / "coco/val2017")
    truth = read_truth(root, "val2017").values()
    assert found.rejection_counts() == {}
    assert [(r.category, list(r.box)) for r in found.regions] == [
        (row["facts"]["category"], row["box"]) for row in truth
    ]
    assert found.category_names == CATEGORIES


def test_the_same_arguments_write_nothing(root):
    before = (root / "truth.jsonl").stat().st_mtime_ns
    write_dataset(root, scenes=10, seed=4)
    assert (root / "truth.jsonl").stat().st_mtime_ns == before


def test_rejects_a_folder_of_another_dataset(root):
    with pytest.raises(InputError, match="choose another folder"):
        write_dataset(root, scenes=10, seed=5)


def test_rejects_a_folder_with_other_files(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="other files"):
        write_dataset(tmp_path, scenes=3, seed=0)
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "mine"


def test_leftovers_of_an_interrupted_run_are_removed(tmp_path):
    left_over = tmp_path / "data.partial" / "vg"
    left_over.mkdir(parents=True)
    write_dataset(tmp_path / "data", scenes=3, seed=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".data.lock", "data"]


def test_processes_that_want_the_same_folder_draw_it_once(tmp_path):
    code = "import logging, sys, pathlib\nfrom lavis_dynrefer.synthetic import write_dataset\n"
    code += "logging.basicConfig(level=logging.INFO, stream=sys.stdout)\n"
    code += "write_dataset(pathlib.Path(sys.argv[1]), scenes=10, seed=4)"
    command = [sys.executable, "-c", code, str(tmp_path / "data")]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") for _ in range(3)
    ]
    said = [one.communicate()[0] for one in running]

    assert [one.returncode for one in running] == [0, 0, 0]
    assert sum("wrote 14 images" in text for text in said) == 1
    assert sum("already holds this dataset" in text for text in said) == 2


def test_the_number_of_processes_changes_nothing(root, tmp_path):
    write_dataset(tmp_path / "two", scenes=10, seed=4, processes=2)
    files = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    same = [
        path
        for path in files
        if (root / path).read_bytes() == (tmp_path / "two" / path).read_bytes()
    ]
    assert same == files


def test_rejects_an_unknown_split(root):
    with pytest.raises(ValueError, match="split: unknown 'dev'"):
        read_truth(root, "dev")
