"""`dynrefer export`: weights of a checkpoint as safetensors."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from lavis_dynrefer.cli import main


@pytest.fixture
def checkpoint(tmp_path):
    tensors = {"backbone.norm.weight": torch.ones(3), "contrast.bias": torch.tensor(2.0)}
    torch.save({"model": tensors, "epoch": 0}, tmp_path / "run.pth")
    return tmp_path / "run.pth"


def test_a_part_is_exported_in_half_precision(checkpoint, tmp_path):
    out = tmp_path / "part.safetensors"
    assert main(["export", str(checkpoint), str(out), "--only", "backbone.", "--half"]) == 0
    state = load_file(out)
    assert set(state) == {"backbone.norm.weight"}
    assert state["backbone.norm.weight"].dtype == torch.float16


def test_official_names_are_written(checkpoint, tmp_path):
    out = tmp_path / "official.safetensors"
    assert main(["export", str(checkpoint), str(out), "--official"]) == 0
    assert set(load_file(out)) == {"ln_vision.weight", "attr_b"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.pth", "{out}.safetensors"], "nowhere.pth"),
        (["{run}", "{out}"], "expected the name of a .safetensors file"),
        (["{run}", "{out}.safetensors", "--only", "tagging."], "tagging."),
    ],
)
def test_an_invalid_call_ends_with_one_line(checkpoint, tmp_path, capsys, arguments, message):
    places = {"run": checkpoint, "out": tmp_path / "out"}
    code = main(["export", *(text.format(**places) for text in arguments)])
    error = capsys.readouterr().err
    assert code == 2
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_a_file_may_be_exported_onto_itself(checkpoint, tmp_path):
    out = tmp_path / "all.safetensors"
    assert main(["export", str(checkpoint), str(out)]) == 0
    assert main(["export", str(out), str(out), "--half"]) == 0
    assert load_file(out)["contrast.bias"].dtype == torch.float16
    assert [path.name for path in tmp_path.glob("all*")] == ["all.safetensors"]
