"""File names in the output folder."""

from __future__ import annotations

import os

import pytest

from lavis_dynrefer.cli.predict.output_folder import file_stem


@pytest.mark.parametrize("name", ["my house.png", "花.png"])
def test_ordinary_names_stay(name):
    assert file_stem(name) == name


def test_changed_names_stay_unique():
    names = ["a/b.png", "a_b.png", "a\\b.png", "../a_b.png", "x" * 300 + "1", "x" * 300 + "2", ".."]
    stems = [file_stem(name) for name in names]
    assert len(set(stems)) == len(names)
    assert not any(set("/\\") & set(stem) for stem in stems)
    assert all(len(os.fsencode(file_stem("花" * 300))) < 250 for stem in stems)
