"""Speed beside the plain path: what is measured, and that both paths answer the same."""

from __future__ import annotations

import json

import pytest
import torch

from lavis_dynrefer.cli import main
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.lab.speed.model_speed import Bench, SpeedOptions, measure_training
from lavis_dynrefer.lab.speed.pairs import summary
from lavis_dynrefer.lab.speed.view_speed import measure_views

SMALL = ("--size", "tiny", "--device", "cpu", "--regions", "2", "--tokens", "3", "--repeats", "1")
STAGES = ["ViT", "region encoder", "Q-Former", "tags", "attributes, categories"]
CAPTIONS = ["caption", "caption, beside generate with a cache", "caption, first token"]


def test_the_ratio_is_the_median_of_pairs():
    found = summary([(3.0, 1.0), (8.0, 2.0), (10.0, 5.0)], regions=2)

    assert found == {"plain_ms": 4000.0, "ms": 1000.0, "ratio": 3.0, "least": 2.0, "most": 4.0}


@pytest.fixture(scope="module")
def bench():
    return Bench(SpeedOptions(size="tiny", device="cpu", regions=22, tokens=4, repeats=1))


def test_both_paths_answer_the_same(bench):  # in chunks of 20 and at once
    found = bench.same_answers()

    assert (found["equal captions"], found["equal tags"]) == ("22 of 22", "22 of 22")
    assert found["of a category"] < 1e-4


def test_captions_have_as_many_tokens_as_asked(bench, monkeypatch):
    tokenizer, written = bench.model.captioning.llm.tokenizer, []
    decode = tokenizer.batch_decode

    def keep_and_decode(ids, **options):
        written.extend(ids)
        return decode(ids, **options)

    monkeypatch.setattr(tokenizer, "batch_decode", keep_and_decode)
    bench.our_answers()

    assert {len(ids) for ids in written} == {1 + 4}  # the start token is before them


def test_a_path_that_answers_differently_is_refused(bench, monkeypatch):
    monkeypatch.setattr(bench.plain, "captions", lambda rows, *_: (["x"] * len(rows), [1.0] * 22))

    with pytest.raises(InputError, match="0 of 22 captions"):
        bench.same_answers()


@pytest.mark.slow
def test_a_training_step(bench):
    found = measure_training(bench.options, bench)

    assert found["losses"]["loss"] == pytest.approx(found["losses"]["plain loss"], rel=1e-4)
    assert found["training step"]["regions/s"] > 0


@pytest.mark.slow
def test_views_are_equal_and_measured():
    pytest.importorskip("cv2", reason="the released way of cropping needs OpenCV")
    found = measure_views(regions=2, repeats=1)

    assert list(found) == [
        f"{size}, {part}" for size in ("640x480", "1920x1080") for part in ("all", "choose", "crop")
    ]


@pytest.mark.slow
def test_the_command_for_a_borrowed_gpu_runs_on_a_cpu(tmp_path, capsys):
    pytest.importorskip("cv2", reason="the released way of cropping needs OpenCV")
    assert main(["benchmark", "all", *SMALL, "--output", str(tmp_path), "--minutes", "20"]) == 0

    report = json.loads((tmp_path / "benchmark_all.json").read_text(encoding="utf-8"))
    rows = [f"inference, 2 beams: {name}" for name in ["all answers", *STAGES, *CAPTIONS]]
    assert set(rows) < set(report["results"])
    assert report["results"]["training: training step"]["ratio"] > 0
    assert report["machine"]["threads"] == torch.get_num_threads()
    assert "regions/s" in capsys.readouterr().out


@pytest.mark.slow
def test_what_does_not_fit_the_time_is_named(tmp_path):
    words = ["benchmark", "all", *SMALL, "--output", str(tmp_path), "--minutes", "0.0001"]
    assert main(words) == 0

    report = json.loads((tmp_path / "benchmark_all.json").read_text(encoding="utf-8"))
    assert "training" in report["results"]["left out, no time"]


@pytest.mark.slow
def test_start_and_profile(capsys):
    assert main(["benchmark", "start", "--repeats", "1"]) == 0
    assert main(["benchmark", "training", *SMALL[:-4], "--repeats", "1", "--profile"]) == 0

    assert "answer" in capsys.readouterr().out
