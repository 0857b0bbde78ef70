"""`dynrefer predict-many`, answering in this process; `test_ray_jobs.py` starts Ray."""

from __future__ import annotations

import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from noise_rows import noise

from lavis_dynrefer.cli import main

BOXES = pa.list_(pa.list_(pa.float64()))
ASKED = (
    "--tasks",
    "tags,categories",
    "--categories",
    "circle,square",
    "--device",
    "cpu",
    "--workers",
    "0",
)


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.parquet"
    boxes = pa.array([[[1, 1, 9 + row, 9]] for row in range(5)], BOXES)
    images = [noise(row) for row in range(5)]
    pq.write_table(pa.table({"id": list(range(5)), "image": images, "boxes": boxes}), path)
    return path


def test_without_ray_one_line_says_how_to_get_it(rows, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)

    assert main(["predict-many", str(rows), "--output", str(tmp_path / "out")]) == 2

    assert capsys.readouterr().err == (
        "error: dynrefer predict-many needs Ray, which is not installed; "
        "pip install 'lavis_dynrefer[ray]'\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_job_is_answered_counted_and_continued(rows, tmp_path, capsys):
    call = ["predict-many", str(rows), "--output", str(tmp_path / "out"), *ASKED]
    call += ["--rows-per-part", "2"]

    assert main(call) == 0
    out = capsys.readouterr().out
    assert out.startswith("rows: 5, answered: 5, regions: 5\n")
    assert out.endswith(f"in {tmp_path / 'out'}: 3 of 3 parts\n")
    whole = pq.read_table(tmp_path / "out").to_pylist()
    assert [row["id"] for row in whole] == list(range(5))

    parts = [tmp_path / "out" / f"part-00000{number}.parquet" for number in range(3)]
    times = [path.stat().st_mtime_ns for path in parts]
    parts[1].unlink()
    assert main(call) == 0
    assert [path.stat().st_mtime_ns == time for path, time in zip(parts, times)] == [
        *(True, False, True),
    ]
    assert pq.read_table(tmp_path / "out").to_pylist() == whole

    assert main([*call, "--no-resume"]) == 0
    assert not any(path.stat().st_mtime_ns == time for path, time in zip(parts, times))
    assert pq.read_table(tmp_path / "out").to_pylist() == whole


def test_other_settings_or_another_input_do_not_continue(rows, tmp_path, capsys):
    call = ["predict-many", str(rows), "--output", str(tmp_path / "out"), *ASKED]
    assert main(call) == 0

    assert main([*call, "--views", "image"]) == 2
    assert "made with other settings: questions" in capsys.readouterr().err
    pq.write_table(pq.read_table(rows).slice(1), rows)
    assert main(call) == 2
    assert "input was" in capsys.readouterr().err


def test_errors_are_counted_and_tried_again_on_request(tmp_path, capsys):
    rows, image = tmp_path / "rows.parquet", tmp_path / "a.png"
    boxes = pa.array([[[1, 1, 9, 9]], [[1, 1, 9, 9]]], BOXES)
    pq.write_table(pa.table({"path": ["a.png", "b.png"], "boxes": boxes}), rows)
    (tmp_path / "b.png").write_bytes(noise(1))
    call = ["predict-many", str(rows), "--output", str(tmp_path / "out"), *ASKED]

    assert main(call) == 3
    told = capsys.readouterr()
    assert "rows: 2, answered: 1, regions: 1\n" in told.out
    assert told.err.endswith(f"rows with an error of the image: 1\n  no image {image}\n")

    image.write_bytes(noise(0))
    assert main(call) == 3
    assert main([*call, "--retry-errors"]) == 0
    assert [row["path"] for row in pq.read_table(tmp_path / "out").to_pylist()] == [
        *("a.png", "b.png"),
    ]


def test_a_folder_of_images_with_a_file_of_boxes(tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (images / name).write_bytes(noise(len(name)))
    listed = [{"id": 7, "file_name": "b.png", "width": 40, "height": 30}]
    listed += [{"id": 8, "file_name": "a.png", "width": 99, "height": 99}]
    regions = [{"id": 3, "image_id": 7, "bbox": [1, 2, 10, 11], "category_id": 1}]
    regions += [{"id": 4, "image_id": 8, "bbox": [1, 2, 10, 11], "category_id": 1}]
    coco = {"images": listed, "annotations": regions, "categories": [{"id": 1, "name": "x"}]}
    (tmp_path / "coco.json").write_text(json.dumps(coco), encoding="utf-8")
    call = ["predict-many", str(images), "--boxes", str(tmp_path / "coco.json")]

    assert main([*call, "--output", str(tmp_path / "out"), *ASKED]) == 3

    assert "images without an entry" in capsys.readouterr().err
    first, second = pq.read_table(tmp_path / "out").to_pylist()
    assert (first["id"], second["id"]) == ("a.png", "b.png")
    assert first["error_kind"] == "boxes"  # drawn on an image of another size
    assert second["regions"][0]["box"] == [1, 2, 11, 13]
    assert second["region_ids"] == ["3"]


def test_whole_images_and_boxes_in_percent(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.png").write_bytes(noise(0))
    (tmp_path / "boxes.json").write_text('{"a.png": [[50, 0, 100, 50]]}', encoding="utf-8")
    call = ["predict-many", str(images), *ASKED]

    assert main([*call, "--whole-image", "--output", str(tmp_path / "1")]) == 0
    given = ["--boxes", str(tmp_path / "boxes.json"), "--box-units", "percent"]
    assert main([*call, *given, "--output", str(tmp_path / "2")]) == 0

    (whole,) = pq.read_table(tmp_path / "1").to_pylist()
    (part,) = pq.read_table(tmp_path / "2").to_pylist()
    assert whole["regions"][0]["box"] == [0, 0, 40, 30]
    assert part["regions"][0]["box"] == [20, 0, 40, 15]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--box-units", "percent"), "goes with --boxes"),
        (("--boxes", "x.json"), "--boxes goes with a folder of images"),
        (("--boxes", "x.json", "--whole-image"), "give one of the two"),
        (("--image-column", "photo"), "expected a column of images photo"),
        (("--views", "random"), "random views differ"),
        (("--checkpoint", "/nowhere.pth"), "/nowhere.pth"),
    ],
)
def test_calls_that_cannot_work(rows, tmp_path, capsys, words, text):
    call = ["predict-many", str(rows), "--output", str(tmp_path / "out"), "--workers", "0"]

    assert main([*call, *words]) == 2

    assert text in capsys.readouterr().err
    assert list(tmp_path.glob("out/*.parquet")) == []


def test_folders_that_are_not_ours_are_left_alone(rows, tmp_path, capsys):
    call = ["predict-many", "--workers", "0"]

    assert main([*call, str(rows), "--output", str(tmp_path)]) == 2
    assert "holds other files" in capsys.readouterr().err
    assert main([*call, str(tmp_path / "none"), "--output", str(tmp_path / "o")]) == 2
    other = tmp_path / "notes.txt"
    other.touch()
    assert main([*call, str(rows), "--output", str(other)]) == 2
    assert "expected a folder, got a file" in capsys.readouterr().err
    assert main([*call, str(tmp_path), "--output", str(tmp_path / "answers")]) == 2
    assert "name a folder beside it" in capsys.readouterr().err
    (tmp_path / "shard.tar").touch()
    assert main([*call, str(tmp_path), "--output", f"{tmp_path}-answers"]) == 2
    assert "holds Parquet files and shards" in capsys.readouterr().err
