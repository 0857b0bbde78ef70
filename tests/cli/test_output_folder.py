"""File names in the output folder, and who may write there."""

from __future__ import annotations

import errno
import os

import pytest

from lavis_dynrefer.cli.predict.output_folder import (
    ImageFiles,
    clashing_names,
    file_stem,
    open_log,
    outdated,
)
from lavis_dynrefer.cli.predict.ranks.rank_folder import RANKS
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats import ResultLog, write_results
from lavis_dynrefer.formats.image_result import ImageResult
from lavis_dynrefer.formats.json_stream import cannot_write, replace_bytes


@pytest.mark.parametrize("name", ["my house.png", "花.png", "console.png", "com.png"])
def test_ordinary_names_stay(name):
    assert file_stem(name) == name


def test_changed_names_stay_unique():
    names = ["a/b.png", "a_b.png", "a\\b.png", "../a_b.png", "x" * 300 + "1", "x" * 300 + "2", ".."]
    stems = [file_stem(name) for name in names]
    assert len(set(stems)) == len(names)
    assert not any(set("/\\") & set(stem) for stem in stems)
    assert all(len(os.fsencode(file_stem("花" * 300))) < 250 for stem in stems)


@pytest.mark.parametrize(
    "name", ["CON", "aux.png", "nul .jpg", "COM1.tar.gz", "lpt¹.png", "a:b.png", "a?.png", "dot. "]
)
def test_names_that_windows_cannot_have_are_changed(name):
    stem = file_stem(name)
    assert stem != name
    assert not set(':?*"<>|') & set(stem)
    assert stem.split(".")[0].strip().lower() not in {"con", "aux", "nul", "com1", "lpt¹"}


def test_names_that_differ_in_case_have_files_of_their_own(tmp_path):
    names = ["A.jpg", "a.jpg", "é.jpg", "É.jpg", "x/a.jpg", "b.jpg"]
    files = ImageFiles(tmp_path, ".jpg", True, clashing_names(names))
    paths = [files.path(name) for name in names]
    assert len({str(path).casefold() for path in paths}) == len(names)
    assert files.path("b.jpg").name == "b.jpg.jpg"


def test_two_runs_do_not_write_into_one_folder(tmp_path):
    with open_log(tmp_path, {}, resume=True), pytest.raises(InputError, match="another run is"):
        open_log(tmp_path, {}, resume=True).__enter__()
    with open_log(tmp_path, {}, resume=True):  # free again
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.jsonl", "run.json"]


def test_an_unwritable_place_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    log = open_log(tmp_path / "file" / "out", {}, resume=True)
    with pytest.raises(InputError, match=r"cannot write .*: "):
        log.__enter__()


def result(name, length=0):
    return ImageResult(name, "x" * length, 9, 9, ())


@pytest.fixture
def left_by_ranks(tmp_path):
    """A folder of a run of which two processes were killed, and one had replaced an answer."""
    with open_log(tmp_path, {"model": "tiny"}, resume=True) as log:
        log.append(result("a.jpg"))
    (tmp_path / RANKS).mkdir()
    for rank, names in enumerate((["a.jpg", "c.jpg"], ["b.jpg"])):
        part = ResultLog(tmp_path / RANKS / f"part-{rank}-0af3.jsonl")
        part.extend([result(name, length=rank + 1) for name in names])
        with part.path.open("ab") as file:
            file.write(b'{"image": "d.j')  # killed here
    return tmp_path


def test_answers_of_killed_processes_are_joined(left_by_ranks):
    with open_log(left_by_ranks, {"model": "tiny"}, resume=True) as log:
        log.compact(["a.jpg", "b.jpg", "c.jpg"])
        rows = {row.image: row.path for row in log}
    assert rows == {"a.jpg": "x", "b.jpg": "xx", "c.jpg": "x"}
    assert not (left_by_ranks / RANKS).exists()


def test_answers_of_killed_processes_with_other_settings_are_refused(left_by_ranks):
    (left_by_ranks / "results.jsonl").write_bytes(b"")
    with pytest.raises(InputError, match="holds answers made with other settings: model was"):
        open_log(left_by_ranks, {"model": "flant5xl"}, resume=True).__enter__()
    assert len(list((left_by_ranks / RANKS).iterdir())) == 2


def test_starting_over_drops_the_answers_of_killed_processes(left_by_ranks):
    with open_log(left_by_ranks, {"model": "flant5xl"}, resume=False) as log:
        assert list(log.names()) == []
    assert not (left_by_ranks / RANKS).exists()


def test_a_log_that_is_gone_is_noticed(tmp_path):
    log = ResultLog(tmp_path / "results.jsonl")
    log.append(result("a.jpg"))
    log.path.unlink()
    with pytest.raises(InputError, match=r"cannot write .*; was its folder removed"):
        log.append(result("b.jpg"))
    assert not log.path.exists()


def test_a_log_that_another_program_changes_is_noticed(tmp_path):
    log, other = (ResultLog(tmp_path / "results.jsonl") for _ in range(2))
    log.append(result("a.jpg"))
    with pytest.raises(InputError, match="was changed by another program"):
        other.append(result("b.jpg"))
    assert [row.image for row in ResultLog(log.path)] == ["a.jpg"]


def test_a_row_for_which_there_is_no_room_is_not_written_in_part(tmp_path):
    resource = pytest.importorskip("resource")
    log = ResultLog(tmp_path / "results.jsonl")
    log.append(result("a.jpg"))
    before = log.path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
    try:
        with pytest.raises(InputError, match=r"cannot write .*: File too large"):
            log.append(result("b.jpg", length=500))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert log.path.read_bytes() == before
    log.append(result("b.jpg", length=500))  # there is room again
    assert [row.image for row in ResultLog(log.path)] == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.ENOSPC, "the disk is full: make room"),
        (errno.EACCES, "if it is open in another program, close it there"),
    ],
)
def test_an_error_of_the_system_has_its_cure(tmp_path, number, cure):
    error = OSError(number, os.strerror(number), "x.csv")
    assert str(cannot_write(tmp_path / "x.csv", error)).endswith(cure)


def test_a_file_that_cannot_be_replaced_stays(tmp_path):
    (tmp_path / "results.csv").mkdir()
    (tmp_path / "results.csv" / "kept").touch()
    with pytest.raises(InputError, match=r"cannot write .*results\.csv"):
        write_results([result("a.jpg")], tmp_path, ["csv"])
    with pytest.raises(InputError, match=r"cannot write .*results\.csv"):
        replace_bytes(tmp_path / "results.csv", b"")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["kept", "results.csv"]


def test_files_without_the_newest_answers_are_named(tmp_path):
    log = ResultLog(tmp_path / "results.jsonl")
    log.append(result("a.jpg"))
    written = write_results(log, tmp_path, ["csv", "json"])
    assert outdated(log, written) == outdated(log, []) == []
    for path in written:
        os.utime(path, ns=(1, 1))
    assert outdated(log, written[:1]) == ["results.json"]
