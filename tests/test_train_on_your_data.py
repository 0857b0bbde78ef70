"""docs/train_on_your_data.md followed step by step, and the same on real photographs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml
from doc_blocks import blocks_of, check, check_launch, commands_of, run_block, run_command

import lavis_dynrefer  # noqa: F401  registers with LAVIS
from lavis_dynrefer.datasets.sources.custom_json import read_custom
from lavis_dynrefer.synthetic import full_caption, make_scene, render
from lavis_dynrefer.training.launch import launch
from lavis_dynrefer.training.run_config import find_run_file

BLOCKS = blocks_of("docs/train_on_your_data.md")
ON_ONE_CPU = ["run.device=cpu", "run.num_workers=0"]
SHORTER = {
    "train": ["run.max_epoch=2", "datasets.custom_region.build_info.evaluators.val=categories"],
    "evaluate": [],
}


def perform(block):
    """Exit code of each command of a block; runs are short and on the CPU."""
    for words in commands_of(block):
        if block.detail:
            words += [] if "--options" in words else ["--options"]
            words += [*ON_ONE_CPU, *SHORTER[block.detail]]
        yield run_command(words)


def draw_images(folder):
    """Three scenes in a csv and one in a json, as somebody might have them."""
    (folder / "images").mkdir()
    rows, annotations = [], []
    for number in (1, 2, 3, 4):
        scene, name = make_scene(0, number), f"{number:04d}.jpg"
        render(scene).save(folder / "images" / name)
        for place, item in enumerate(scene.objects):
            x1, y1, x2, y2 = map(float, item.box)
            caption = full_caption(scene, place)
            row = {"file_name": name, "x1": x1, "y1": y1, "x2": x2, "y2": y2, "caption": caption}
            box = {"id": place, "image_id": 4, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            labels = {"caption": caption, "category_id": 1 + place % 2}
            (annotations if number == 4 else rows).append({**box, **labels} if number == 4 else row)
    with (folder / "train.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    document = {
        "images": [{"id": 4, "file_name": "0004.jpg"}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "disc"}, {"id": 2, "name": "boat"}],
    }
    (folder / "val.json").write_text(json.dumps(document), encoding="utf-8")
    return annotations


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """The folder after all steps of the page, and the exit codes of its commands."""
    folder, codes, run = tmp_path_factory.mktemp("mine"), [], "RUN"
    draw_images(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in BLOCKS:
            block = block._replace(text=block.text.replace("RUN", run))
            if block.use == "run" and block.language == "bash":
                codes += perform(block)
            elif block.use in ("run", "file"):
                run_block(block, {})
            if block.detail == "train":
                (run,) = [path.name for path in Path("output").iterdir()]
    return folder, codes


def test_every_command_succeeds(mine):
    _, codes = mine

    assert codes == [0] * 6


def test_every_region_is_answered_and_graded(mine):
    folder, _ = mine
    asked = json.loads((folder / "val.json").read_text(encoding="utf-8"))["annotations"]

    (path,) = folder.glob("output/*/report_val_epochevaluate.json")
    report = json.loads(path.read_text(encoding="utf-8"))

    assert (report["evaluator"], report["protocol"]) == ("dense_caption", "custom-val")
    assert (report["counts"]["asked"], report["counts"]["missing"]) == (len(asked), 0)
    lines = Path(report["predictions"]).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["region_id"] for line in lines] == [row["id"] for row in asked]


def test_the_csv_gives_the_same_boxes(mine):
    folder, _ = mine
    rows = list(csv.DictReader((folder / "train.csv").open(encoding="utf-8")))

    found = read_custom(folder / "train.json", folder / "images", name="own", split="train")

    corners = [tuple(float(row[key]) for key in ("x1", "y1", "x2", "y2")) for row in rows]
    assert [region.box for region in found.regions] == [pytest.approx(box) for box in corners]
    assert len(found.images) == 3


def test_the_json_of_the_page_is_valid(mine):
    folder, _ = mine

    found = read_custom(folder / "example.json", folder / "images", name="own", split="train")

    assert len(found.regions) == 3
    assert found.rejected == []


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.use == "not run"])
def test_commands_for_larger_machines_are_valid(mine, block, monkeypatch):
    folder, _ = mine
    monkeypatch.chdir(folder)
    (words,) = commands_of(block)

    check(words)


def test_settings_shown_separately_exist(mine, monkeypatch):
    folder, _ = mine
    monkeypatch.chdir(folder)
    (text,) = [block.text for block in BLOCKS if block.use == "build_info"]
    options = [
        f"datasets.custom_region.build_info.{key}.{split}={value}"
        for key, values in yaml.safe_load(text).items()
        for split, value in values.items()
    ]

    check_launch(["--cfg-path", "mine.yaml", "--options", *options])


@pytest.fixture
def photographs(shared, tmp_path):
    """Captions of one sample to train on; categories and attributes of another to be graded on."""
    captions, labels = shared / "fixtures/vg_format_e2e", shared / "fixtures/coco_ovad_e2e"
    described = json.loads(
        (captions / "vg1.2/region_descriptions.json").read_text(encoding="utf-8")
    )
    urls = json.loads((captions / "vg1.2/image_data.json").read_text(encoding="utf-8"))
    train = {
        "images": [
            {
                "id": row["image_id"],
                "file_name": f"vg_format_e2e/images/{'/'.join(row['url'].split('/')[-2:])}",
            }
            for row in urls[:6]
        ],
        "annotations": [
            {
                "id": region["region_id"],
                "image_id": region["image_id"],
                "bbox": [region[key] for key in ("x", "y", "width", "height")],
                "caption": region["phrase"],
            }
            for image in described[:6]
            for region in image["regions"]
        ],
    }
    names = json.loads((labels / "annotations/instances_val2017.json").read_text(encoding="utf-8"))
    ovad = json.loads((labels / "ovad2000.json").read_text(encoding="utf-8"))
    for row in ovad["annotations"]:
        known = zip(ovad["attributes"], row.pop("att_vec"))
        row["attributes"] = {item["name"]: label for item, label in known if label >= 0}
    for document in (names, ovad):
        for image in document["images"]:
            image["file_name"] = f"coco_ovad_e2e/val2017/{image['file_name']}"
    for name, document in {"train": train, "names": names, "attributes": ovad}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")
    return tmp_path


def test_the_run_file_trains_on_photographs_and_grades_by_the_labels(photographs, shared):
    place = "datasets.custom_region.build_info"
    files = {"train": "train.json", "val": "names.json", "traits": "attributes.json"}

    run = launch(
        "projects/dynrefer/train/custom.yaml",
        [
            *(f"{place}.annotations.{split}={name}" for split, name in files.items()),
            f"{place}.root={photographs}",
            f"{place}.images.storage={shared / 'fixtures'}",
            f"{place}.max_images=5",
            "model.model_type=tiny",
            "run.amp=false",
            "run.batch_size_train=4",
            "run.max_epoch=3",
            "run.valid_splits=[]",
            "run.test_splits=[val,traits]",
            f"run.output_dir={photographs / 'output'}",
            *ON_ONE_CPU,
        ],
    )

    log = (run.output_dir / "log.txt").read_text(encoding="utf-8").splitlines()
    losses = [float(json.loads(line)["train_loss"]) for line in log if '"train_loss"' in line]
    assert losses[2] < losses[1] < losses[0]
    reports = [
        json.loads((run.output_dir / f"report_{split}_epoch2.json").read_text(encoding="utf-8"))
        for split in ("val", "traits")
    ]
    assert [report["evaluator"] for report in reports] == ["categories", "attributes"]
    assert [report["counts"]["missing"] for report in reports] == [0, 0]
    assert [report["counts"]["regions"] for report in reports] == [18, 27]


def test_the_page_names_a_run_file_that_is_shipped():
    assert find_run_file("projects/dynrefer/train/custom.yaml").is_file()
