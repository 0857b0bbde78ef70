"""The same class in datasets and Spark, and the files of answers in other readers."""

from __future__ import annotations

import io
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from noise_rows import QUESTIONS

from lavis_dynrefer.bulk import BulkPredictor, answer_schema, read_regions

pytestmark = pytest.mark.slow

BOXES = pa.list_(pa.list_(pa.float64()))


@pytest.fixture
def table(files, boxes):
    return pa.table({"id": [1, 2, 3], "image": files, "boxes": pa.array(boxes, BOXES)})


def test_datasets_map(bulk, files, boxes, expected, tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    structs = [{"bytes": data, "path": None} for data in files]
    given = datasets.Dataset.from_dict({"id": [1, 2, 3], "image": structs, "boxes": boxes})
    schema = given.features.arrow_schema
    features = datasets.Features.from_arrow_schema(answer_schema(schema, without=["image"]))

    answered = given.map(
        bulk,
        batched=True,
        batch_size=2,
        remove_columns=["image"],
        features=features,
        cache_file_name=str(tmp_path / "one.arrow"),
    )
    decoded = given.cast_column("image", datasets.Image()).map(
        bulk,
        batched=True,
        remove_columns=["image"],
        cache_file_name=str(tmp_path / "two.arrow"),
    )

    for found in (answered, decoded):
        assert found["id"][:] == [1, 2, 3]
        assert [read_regions(regions) for regions in found["regions"]] == expected


def test_spark_map_in_pandas(bulk, table, expected, tmp_path, monkeypatch):
    pyspark = pytest.importorskip("pyspark", reason="needs pyspark")
    from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

    assert pyspark.__version__
    source = tmp_path / "rows.parquet"
    pq.write_table(table, source)
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    spark = (
        pyspark.sql.SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", "2")
        .getOrCreate()
    )
    try:
        given = spark.read.parquet(str(source))
        made = answer_schema(to_arrow_schema(given.schema), without=["image"])
        answered = given.mapInPandas(bulk.frames, from_arrow_schema(made))
        rows = [row.asDict(recursive=True) for row in answered.orderBy("id").collect()]
        bad = spark.createDataFrame([("/nowhere.png", [[0.0, 0.0, 9.0, 9.0]])], ["path", "boxes"])
        given = pa.schema([("path", pa.string()), ("boxes", BOXES)])
        (lost,) = bad.mapInPandas(bulk.frames, from_arrow_schema(answer_schema(given))).collect()
    finally:
        spark.stop()

    assert [row["id"] for row in rows] == [1, 2, 3]
    assert [read_regions(row["regions"]) for row in rows] == expected
    assert (lost["image_width"], lost["error_kind"]) == (None, "image")


def test_files_of_answers_in_other_readers(bulk, table, expected, tmp_path):
    pq.write_table(bulk(table), tmp_path / "part-000000.parquet")
    pattern = str(tmp_path / "*.parquet")
    pd = pytest.importorskip("pandas", reason="needs pandas")
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    duckdb = pytest.importorskip("duckdb", reason="needs duckdb")

    frame = pd.read_parquet(tmp_path)
    loaded = datasets.load_dataset(
        "parquet", data_files=pattern, split="train", cache_dir=str(tmp_path / "cache")
    )
    asked = duckdb.sql(
        f"select id, r.categories[1].name, r.categories[1].score, r.box "
        f"from (select id, unnest(regions) as r from '{pattern}') order by id, r.box[1]"
    ).fetchall()

    assert [read_regions(regions) for regions in frame["regions"]] == expected
    assert [read_regions(regions) for regions in loaded["regions"]] == expected
    flat = [(row + 1, region) for row, regions in enumerate(expected) for region in regions]
    assert asked == [(row, *region.categories[0], list(region.box)) for row, region in flat]


def test_webdataset_through_ray(files, tmp_path):
    pytest.importorskip("ray", reason="needs the extra ray")
    import tarfile

    from lavis_dynrefer.bulk import webdataset_row
    from lavis_dynrefer.bulk.ray_job import Workers, connected

    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for name, data in (("a.png", files[0]), ("a.json", b"[[1, 2, 30, 20]]")):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    with connected(Workers(1), cpus=2):
        import ray

        rows = ray.data.read_webdataset(str(tmp_path / "s.tar"), decoder=None)
        answered = (
            rows.map(webdataset_row)
            .map_batches(
                BulkPredictor,
                fn_constructor_kwargs={"questions": QUESTIONS, "device": "cpu"},
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=1),
            )
            .take_all()
        )
    assert [(row["id"], row["error"]) for row in answered] == [("a", None)]


def test_a_decoded_shard_is_an_error_of_its_rows():
    from lavis_dynrefer.bulk import webdataset_row

    row = webdataset_row({"__key__": "a", "png": b"", "json": [[1, 2, 30, 20]]})

    assert "its json is a list, expected bytes" in str(row["boxes"])
