"""Options about the model that predict, serve and demo share; devices that are not there."""

from __future__ import annotations

import argparse

import pytest
import torch

from lavis_dynrefer.cli import main
from lavis_dynrefer.cli.model_arguments import add_model_arguments, load_predictor
from lavis_dynrefer.models.dynrefer import DynRefer

NO_CUDA = "device: torch finds no cuda device"


def test_chunk_and_dtype_reach_the_predictor():
    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    given = parser.parse_args(["--chunk", "5", "--dtype", "bfloat16", "--device", "cpu"])
    predictor = load_predictor(given)
    default = parser.parse_args([])

    assert (predictor.chunk, predictor.dtype) == (5, "bfloat16")
    assert (default.chunk, default.dtype, default.device) == (64, "auto", "auto")


@pytest.mark.parametrize("command", [["predict", "x.png", "--whole-image"], ["serve"], ["demo"]])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--chunk", "0"], "argument --chunk: expected at least 1, got 0"),
        (["--chunk", "many"], "argument --chunk: invalid integer value: 'many'"),
        (["--dtype", "half"], "argument --dtype: invalid choice: 'half'"),
    ],
)
def test_invalid_options_are_refused(command, options, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*command, *options])

    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["predict", "serve", "demo"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "cuda"], NO_CUDA),
        (["--device", "cuda:7"], NO_CUDA),
        (["--device", "mps"], "device: torch finds no mps device; use cpu or auto"),
        (["--device", "xpu"], "device: torch finds no xpu device; use cpu or auto"),
        (["--device", "gpu0"], "device: expected auto, cpu, cuda, cuda:1 or another of torch's"),
        (["--dtype", "float16", "--device", "cpu"], "dtype: float16 needs a CUDA device, got cpu"),
    ],
)
def test_a_device_that_is_not_there_is_one_sentence_before_the_model_is_built(
    command, options, message, image, monkeypatch, capsys
):
    if command == "demo":
        pytest.importorskip("gradio", reason="needs the extra `demo`")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(DynRefer, "from_pretrained", None)
    own = [str(image), "--whole-image"] if command == "predict" else ["--port", "0"]

    assert main([command, *own, *options]) == 2

    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {message}")
