from __future__ import annotations

import json

import pytest

from lavis_dynrefer.cli import main
from lavis_dynrefer.lab.model_report import describe


@pytest.mark.slow
def test_parts_files_and_memory_of_the_embedded_model(capsys):
    assert main(["info", "--model", "tiny", "--batch", "2", "--dtype", "released", "--json"]) == 0

    report = json.loads(capsys.readouterr().out)
    assert report["files"]["checkpoint"] == "assets/tiny/model.safetensors"
    answers, training = report["answers"]["released"], report["training"]["short captions"]
    stored = sum(part["stored"] for part in report["parts"].values())
    # The ViT and T5 are stored in half of their size.
    halves = sum(report["parts"][name]["stored"] for name in ("backbone", "captioning.llm")) / 2
    assert answers["weights"] == pytest.approx(stored - halves, rel=0.05)
    assert answers["peak"] == max(answers.values()) > answers["weights"]
    trained = sum(part["trained"] for part in report["parts"].values())
    assert training["optimiser"] == 8 * trained
    assert training["peak"] > training["weights"] + training["optimiser"]
    # 2 rows: keys and values of T5's 2 layers with 4 x 32 channels, in bfloat16, of 16 places of
    # the prompt and 24 tokens (20, rounded up) of 2 beams; logits of 768 tokens in 2 formats.
    assert answers["kept search"] == 2 * (2 * 2 * 2 * 128 * (16 + 2 * 24) + (2 + 4) * 2 * 768)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "tinny"], "did you mean"),
        (["--model", "tiny", "--batch", "0"], "--batch: expected at least 1"),
        (["--batch", "4"], "--batch is about a model; name one with --model"),
        (["--model", "vicuna7b"], "Flan-T5 only"),
    ],
)
def test_invalid_arguments(words, message, capsys):
    assert main(["info", *words]) == 2

    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_released_model_fits_the_cards_that_it_should():
    report = dict(describe("flant5xl"))

    answers = {row: numbers["peak"] / 2**30 for row, numbers in report["answers"].items()}
    assert answers["released"] < 15  # of 16 GB
    assert answers["int8"] < 11  # of 12 GB
    assert report["training"]["longest captions"]["peak"] / 2**30 < 24
