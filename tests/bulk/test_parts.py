"""Parts of files, their answers in files of their own, and damaged input."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from noise_rows import noise

from lavis_dynrefer.bulk import read_regions, webdataset_row
from lavis_dynrefer.bulk.answer_folder import clean, count_answers, parts_to_do
from lavis_dynrefer.bulk.image_manifest import ImageRow, fractions, write_manifest
from lavis_dynrefer.bulk.part_answerer import UNFINISHED, PartAnswerer
from lavis_dynrefer.bulk.webdataset_rows import read_shard
from lavis_dynrefer.bulk.work_parts import Part, _bounds, find_files, find_parts, read_rows
from lavis_dynrefer.errors import InputError, MissingFileError

BOXES = pa.list_(pa.list_(pa.float64()))


def write_table(path, rows, **options):
    table = {"id": list(range(rows)), "image": [noise(row) for row in range(rows)]}
    table["boxes"] = pa.array([[[1, 1, 9 + row, 9]] for row in range(rows)], BOXES)
    pq.write_table(pa.table(table), path, **options)
    return path


def write_shard(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


@pytest.fixture
def answer(bulk, tmp_path):
    """Answers all parts of files; returns the folder."""

    def do(*files, rows=2):
        folder = tmp_path / "answers"
        folder.mkdir(exist_ok=True)
        answerer = PartAnswerer(bulk, str(folder), batch_size=2)
        for part in find_parts(files, rows):
            answerer(asdict(part))
        return folder

    return do


@pytest.mark.parametrize(
    ("counts", "rows", "bounds"),
    [
        ([], 2, []),
        ([0], 2, []),
        ([4], 2, [(0, 2), (2, 4)]),
        ([5, 1, 1, 1], 2, [(0, 2), (2, 4), (4, 5), (5, 7), (7, 8)]),
        ([1, 1, 1], 2, [(0, 2), (2, 3)]),
        ([1, 5], 2, [(0, 1), (1, 3), (3, 5), (5, 6)]),
        ([130], 1, [(start, min(start + 3, 130)) for start in range(0, 130, 3)]),
    ],
)
def test_large_groups_are_cut_and_small_ones_joined(counts, rows, bounds):
    assert _bounds(counts, rows) == bounds


def test_every_row_is_read_once_whatever_the_groups(tmp_path):
    path = tmp_path / "rows.parquet"
    for group in (1, 2, 3, 7, 20):
        pq.write_table(pa.table({"id": list(range(20))}), path, row_group_size=group)
        for rows in (1, 2, 4, 30):
            for size in (1, 3, 64):
                batches = [
                    batch for part in find_parts([path], rows) for batch in read_rows(part, size)
                ]
                found = [row for batch in batches for row in batch.column("id").to_pylist()]
                assert found == list(range(20)), (group, rows, size)
                assert max(batch.num_rows for batch in batches) <= size


def test_answers_of_parts_are_one_table_in_order(answer, bulk, tmp_path):
    folder = answer(write_table(tmp_path / "rows.parquet", 5))

    table = pq.read_table(folder)
    whole = bulk(pq.read_table(tmp_path / "rows.parquet"))
    assert [path.name for path in sorted(folder.iterdir())] == [
        f"part-00000{number}.parquet" for number in range(3)
    ]
    assert table.drop_columns("regions").to_pylist() == whole.drop_columns("regions").to_pylist()
    for one, other in zip(table.column("regions"), whole.column("regions")):
        assert read_regions(one.as_py()) == read_regions(other.as_py())


def test_a_part_that_is_there_is_not_done_again(bulk, tmp_path):
    (part,) = find_parts([write_table(tmp_path / "rows.parquet", 1)], 10)
    answerer = PartAnswerer(bulk, str(tmp_path))
    answerer(asdict(part))
    (tmp_path / "rows.parquet").unlink()

    assert answerer(asdict(part)) == {"number": 0, "rows": 1, "seconds": 0.0}


def test_what_is_left_after_a_killed_job(answer, tmp_path):
    source = write_table(tmp_path / "rows.parquet", 5)
    folder = answer(source)
    parts = find_parts([source], 2)
    (folder / "part-000001.parquet").unlink()
    (folder / f"{UNFINISHED}part-000001.parquet-1234").write_bytes(b"half")
    (folder / "part-000002.parquet").write_bytes(b"of a full disk")

    assert [part.number for part in parts_to_do(parts, folder, retry_errors=False)] == [1, 2]
    assert [path.name for path in folder.iterdir()] == ["part-000000.parquet"]
    clean(folder)
    assert list(folder.iterdir()) == []


def test_parts_with_errors_are_done_again_where_asked(answer, tmp_path):
    table = pa.table(
        {"image": ["/nowhere/1.png", "/nowhere/2.png"], "boxes": pa.array([[], []], BOXES)}
    )
    source = tmp_path / "rows.parquet"
    pq.write_table(table, source)
    folder = answer(source)
    parts = find_parts([source], 2)

    counts = count_answers(parts, folder)

    assert (counts.rows, counts.regions, counts.errors) == (2, 0, {"image": 2})
    assert counts.examples == {"image": ["no image /nowhere/1.png", "no image /nowhere/2.png"]}
    assert parts_to_do(parts, folder, retry_errors=False) == []
    assert parts_to_do(parts, folder, retry_errors=True) == parts


def test_files_that_cannot_be_read_are_rows_with_errors(bulk, tmp_path):
    bad, good, without = (tmp_path / f"{letter}.parquet" for letter in "abc")
    bad.write_bytes(b"no parquet")
    write_table(good, 1)
    pq.write_table(pq.read_table(good).drop_columns("boxes"), without)
    folder = tmp_path / "answers"
    folder.mkdir()

    answerer = PartAnswerer(bulk, str(folder), columns=pq.read_schema(good))
    for part in find_parts([bad, good, without], 2):
        answerer(asdict(part))

    first, second, third = pq.read_table(folder).to_pylist()
    assert (first["id"], first["error_kind"]) == (None, "file")
    assert str(bad) in first["error"]
    assert (second["id"], second["error"]) == (0, None)
    assert (third["id"], third["error_kind"]) == (None, "file")
    assert third["error"].startswith(f"{without}: expected a column 'boxes'")


def test_rows_before_the_damage_of_a_file_are_answered(answer, tmp_path):
    source = write_table(tmp_path / "rows.parquet", 4, row_group_size=2, compression="none")
    data = bytearray(source.read_bytes())
    about = pq.read_metadata(source).row_group(1).column(1)
    start = about.dictionary_page_offset or about.data_page_offset
    data[start : start + 40] = b"\xff" * 40
    source.write_bytes(data)

    rows = pq.read_table(answer(source, rows=4)).to_pylist()

    assert [row["id"] for row in rows] == [0, 1, None]
    assert [row["error_kind"] for row in rows] == [None, None, "file"]
    assert "cannot be read from row 2 on" in rows[2]["error"]


def test_shards_of_webdataset(answer, bulk, files, boxes, expected, tmp_path):
    members = [
        ("train/a.png", files[0]),
        ("train/a.json", json.dumps({"boxes": boxes[0], "source": "me"}).encode()),
        ("train/b.json", b"[]"),
        ("train/b.png", files[1]),
        ("train/c.PNG", files[2]),
        ("train/c.json", json.dumps([{"box": box} for box in boxes[2]]).encode()),
        ("train/d.png", files[0]),
        ("train/e.json", b'{"boxes": '),
        ("train/e.png", files[0]),
    ]
    path = write_shard(tmp_path / "s.tar", members)

    table = pq.read_table(answer(path))

    assert table.column("id").to_pylist() == [f"train/{letter}" for letter in "abcde"]
    assert table.column("shard").to_pylist() == [str(path)] * 5
    assert json.loads(table.column("json")[0].as_py())["source"] == "me"
    assert table.column("error_kind").to_pylist() == [None, None, None, "boxes", "boxes"]
    found = [read_regions(regions.as_py()) for regions in table.column("regions")]
    assert found == [*expected, [], []]


def test_a_shard_that_was_cut_off_anywhere(answer, files, tmp_path):
    members = [(f"{n}.{kind}", data) for n in range(3) for kind, data in _sample(files[n])]
    whole = write_shard(tmp_path / "whole.tar", members).read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as archive:
        starts = [entry.offset for entry in archive]
    for cut in (starts[2], starts[3], starts[4] + 700):  # between samples, inside one, in an image
        (tmp_path / "s.tar").write_bytes(whole[:cut])

        found = list(_samples_and_error(tmp_path / "s.tar"))

        assert [sample["__key__"] for sample in found[:-1]] == ["0", "1"][: len(found) - 1]
        assert isinstance(found[-1], tarfile.TarError)
        assert len(found) == (3 if cut > starts[4] else 1 if cut == starts[2] else 2)
    (tmp_path / "s.tar").write_bytes(whole[: starts[3]])
    rows = pq.read_table(answer(tmp_path / "s.tar")).to_pylist()
    assert [(row["id"], row["error_kind"]) for row in rows] == [("0", None), (None, "file")]
    assert "cannot be read from row 1 on" in rows[1]["error"]


def _samples_and_error(path):
    try:
        yield from read_shard(path)
    except tarfile.TarError as error:
        yield error


def _sample(image):
    return [("png", image), ("json", b"[[1, 1, 9, 9]]")]


def test_rows_of_samples(files):
    row = webdataset_row({"__key__": "1", "left.jpg": b"x", "right.jpg": b"y", "json": b"[]"})
    assert "the sample has 2 images" in str(row["boxes"])
    row = webdataset_row(
        {"__key__": "1", "jpg": b"x", "json": b'[{"x": 1, "y": 2, "w": 3, "h": 4}]'}
    )
    assert "its keys say xywh" in str(row["boxes"])
    row = webdataset_row(
        {"__key__": "1", "jpg": b"x", "json": b'[{"x": 1, "y": 2, "w": 3, "h": 4}]'}, format="xywh"
    )
    assert row["boxes"] == [[1, 2, 3, 4]]


def test_files_of_a_folder(tmp_path):
    for name in ("b.parquet", "sub/a.parquet", "_job/rows.parquet", ".x.parquet", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    found = find_files(tmp_path, [".parquet"])

    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        *("b.parquet", "sub/a.parquet"),
    ]
    with pytest.raises(InputError, match=r"no \.tar files"):
        find_files(tmp_path, [".tar"])
    with pytest.raises(MissingFileError):
        find_files(tmp_path / "none", [".tar"])


def test_images_of_a_folder_become_a_table(tmp_path):
    masks = [[[1, 2, 3, 2, 3, 4]]]
    rows = [
        ImageRow("a.png", "/a.png", [[1, 2, 3, 4]], ["7"], (40, 30), masks),
        ImageRow("b", "/b", None),
    ]

    write_manifest(rows, tmp_path / "rows.parquet")

    first, second = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert first == {
        "id": "a.png",
        "path": "/a.png",
        "boxes": [[1, 2, 3, 4]],
        "region_ids": ["7"],
        "image_size": [40, 30],
        "masks": ["[[1, 2, 3, 2, 3, 4]]"],
    }
    assert (second["boxes"], second["image_size"], second["masks"]) == (None, None, None)
    assert fractions([[10, 0, 500, 1000]], "thousandths") == [[0.01, 0, 0.5, 1]]
    assert fractions([[10, 0, 500, 1000]], "pixels") == [[10, 0, 500, 1000]]


def test_another_version_on_a_node_is_refused(bulk, tmp_path):
    answerer = PartAnswerer(bulk, str(tmp_path), version="0.0.0")

    with pytest.raises(InputError, match="install the same on all nodes"):
        answerer(asdict(Part(0, "x.parquet", 0, 1)))


def test_a_shard_of_sa1b_has_masks():
    mask = {"size": [4, 4], "counts": "52203"}
    document = {
        "image": {"image_id": 7, "file_name": "sa_7.jpg", "width": 4, "height": 4},
        "annotations": [{"bbox": [1, 1, 2, 2], "segmentation": mask}],
    }

    row = webdataset_row({"__key__": "sa_7", "jpg": b"x", "json": json.dumps(document).encode()})

    assert row["boxes"] == [[1, 1, 3, 3]]
    assert [json.loads(one) for one in row["masks"]] == [{"size": [4, 4], "counts": "52203"}]
    document["annotations"].append({"bbox": [1, 1, 2]})
    row = webdataset_row({"__key__": "sa_7", "jpg": b"x", "json": json.dumps(document).encode()})
    assert "annotations[1]" in str(row["boxes"])


def test_masks_of_a_shard_reach_the_model(tmp_path, answer):
    record = {"box": [1, 1, 9, 9], "segmentation": {"size": [4, 4], "counts": "52203"}}
    sample = [("0.png", noise(0)), ("0.json", json.dumps([record]).encode())]

    (row,) = pq.read_table(answer(write_shard(tmp_path / "s.tar", sample))).to_pylist()

    assert "the mask is 4 x 4 pixels" in row["error"]
