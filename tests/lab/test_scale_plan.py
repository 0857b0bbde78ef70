from __future__ import annotations

import io
import math

import pytest
from PIL import Image

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.lab.benchmarks import scale_costs, scale_plan
from lavis_dynrefer.lab.benchmarks.scale_plan import Costs, plan


def test_a_plan_worked_out_by_hand():
    costs = Costs(
        regions_per_image=10,
        image_bytes=1e5,
        decode_ms=10,
        views_ms=3,
        answer_bytes=100,
        gpu_rate=100,
        start_seconds=36,
        shard_bytes=1e9,
    )

    found = plan(3.6e6, gpus=2, cores=4, costs=costs)

    assert (found.images, found.image_bytes, found.shards) == (360_000, 3.6e10, 36)
    assert found.answer_bytes == 3.6e8
    assert found.view_hours == pytest.approx(4)  # 4 ms for each region
    assert found.model_hours == pytest.approx(10)
    assert found.cores_per_gpu == pytest.approx(0.4)
    assert found.hours == pytest.approx(5.01)  # 10 hours on two GPUs, and the start
    assert found.limit == "GPU"


@pytest.mark.parametrize(
    ("regions", "gpus", "cores", "limit"),
    [(100, 1, 8, "start"), (1e6, 1, 8, "GPU"), (1e6, 8, 1, "images"), (1e6, 0, 64, "CPU")],
)
def test_what_limits_a_job(regions, gpus, cores, limit):
    assert plan(regions, gpus=gpus, cores=cores).limit == limit


def test_invalid_numbers_are_refused():
    with pytest.raises(InputError, match="views_ms"):
        plan(10, gpus=0, cores=1, costs=Costs(views_ms=0))
    with pytest.raises(InputError, match="counts"):
        plan(10, gpus=0, cores=0)


def test_the_command_of_the_page_prints_its_numbers(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["scale_plan", "1e8", "--gpus", "8", "--cores", "64"])

    scale_plan.main()

    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["images", "10,000,000"] in rows
    assert ["shards", "3,100"] in rows
    assert ["model,", "GPU", "hours", "167.3"] in rows
    assert ["hours", "by", "the", "clock", "20.92"] in rows


def test_costs_are_measured_at_the_smallest_size(tmp_path):
    reading = scale_costs.measure_reading(tmp_path / "new", images=3)
    answers = scale_costs.measure_answers(tmp_path, regions=40)

    assert set(reading) == {"files_ms", "tar_ms", "parquet_ms"}
    assert all(math.isfinite(number) for number in reading.values())
    sizes = [one["parquet"] for one in answers.values()]
    assert sizes == sorted(sizes)


def test_the_drawn_photograph_is_one_to_decode():
    content = scale_costs.photo_like_jpeg((64, 48))

    assert Image.open(io.BytesIO(content)).size == (64, 48)
