"""Files of tensors: kinds, damage, and what else may lie in their place."""

from __future__ import annotations

import hashlib
import os

import pytest
import torch
from safetensors.torch import save_file

from lavis_dynrefer.models.weights.tensor_reading import (
    CheckpointError,
    file_digest,
    open_tensors,
    read_state_dict,
)


def test_files_of_both_kinds_are_read(tmp_path):
    tensors = {"a": torch.arange(3.0)}
    save_file(tensors, tmp_path / "a.safetensors")
    torch.save({"model": tensors, "epoch": 1}, tmp_path / "a.pth")
    for name in ("a.safetensors", "a.pth"):
        assert torch.equal(read_state_dict(tmp_path / name)["a"], tensors["a"])


@pytest.mark.parametrize("name", ["blob", "a.pth", "\udcff.safetensors", "\udcff.pth"])
def test_a_file_is_known_by_its_content(tmp_path, name):
    tensors = {"a": torch.arange(3.0)}
    for write in (save_file, torch.save):
        write(tensors, tmp_path / "first")
        try:
            os.replace(tmp_path / "first", tmp_path / name)
        except (OSError, UnicodeError):
            pytest.skip("names of files are UTF-8 here")
        if name.isprintable():
            assert torch.equal(open_tensors(tmp_path / name)["a"], tensors["a"])
        else:
            with pytest.raises(CheckpointError, match="not UTF-8; rename the file"):
                open_tensors(tmp_path / name)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: tensor.to("meta"),
        lambda tensor: tensor.to_sparse(),
        lambda tensor: tensor.to(torch.complex64),
    ],
)
def test_tensors_without_plain_numbers_are_refused(tmp_path, change):
    torch.save({"a": torch.ones(3), "b": change(torch.ones(3))}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"a\.pth: expected plain numbers.* such as b"):
        open_tensors(tmp_path / "a.pth")


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "run"),))

    for new in (True, False):
        torch.save({"model": Payload()}, tmp_path / "bad.pth", _use_new_zipfile_serialization=new)
        with pytest.raises(CheckpointError, match="would run code"):
            read_state_dict(tmp_path / "bad.pth")
    assert not (tmp_path / "run").exists()


def flip(data):
    """One bit of the tensor is another: `torch.load` does not see it."""
    place = data.index(torch.full((9,), 7.0).numpy().tobytes()) + 3
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("a.pth", flip),
        ("a.pth", lambda data: data[: len(data) // 2]),
        ("a.pth", lambda data: data[:-30]),
        ("a.pth", lambda data: b""),
        ("a.pth", lambda data: b"\x80\x02 no tensors here"),
        ("a.pth", lambda data: data.replace(b"ctorch", b"c\xfforch")),
        ("legacy.pth", lambda data: data[:319]),
        ("legacy.pth", lambda data: data[:-9]),
        ("a.safetensors", lambda data: data[:-9]),
        ("a.safetensors", lambda data: b"\xff" * 16 + data),
        ("a.safetensors", lambda data: b"\x80\x02 no tensors here"),
    ],
)
def test_a_damaged_checkpoint_is_named(tmp_path, name, spoil):
    tensors = {"a": torch.full((9,), 7.0)}
    path = tmp_path / name
    with pytest.raises(FileNotFoundError, match=f"{name}: it does not exist"):
        read_state_dict(path)
    if name == "a.safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=name == "a.pth")
    read_state_dict(path)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(CheckpointError, match=name) as error:
        read_state_dict(path)
    assert "\n" not in str(error.value)


def test_digests_are_computed_once_for_each_version_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("DYNREFER_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "a.bin"
    path.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of FIPS 180-2
    assert file_digest(path) == known
    (kept,) = (tmp_path / "cache" / "digests").iterdir()
    kept.write_text(kept.read_text(encoding="utf-8").replace(known, "kept"), encoding="utf-8")
    assert file_digest(path) == "kept"
    path.write_bytes(b"abcd")
    assert file_digest(path) == hashlib.sha256(b"abcd").hexdigest()
    (tmp_path / "taken").touch()  # a folder that cannot be made
    monkeypatch.setenv("DYNREFER_CACHE", str(tmp_path / "taken"))
    path.write_bytes(b"abc")
    assert file_digest(path) == known
