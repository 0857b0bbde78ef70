"""Processes that meet in a folder, here as threads."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from lavis_dynrefer.cli.predict.ranks import rank_folder
from lavis_dynrefer.cli.predict.ranks.rank_folder import (
    DONE,
    FAILED,
    RANKS,
    RankError,
    RankFolder,
    RefusedError,
)
from lavis_dynrefer.cli.predict.ranks.rank_variables import Rank

SHORT = 0.3  # seconds, where somebody is waited for in vain


@pytest.fixture
def make(tmp_path):
    """Makes the view of a process on a folder."""

    def made(rank, world=2, *, launch="here", about=None, patience=60, folder=tmp_path):
        own = Rank(rank, world, rank, world, launch)
        return RankFolder(folder, own, about or {"images": "3"}, patience)

    return made


@pytest.fixture
def both():
    """Runs two functions at the same time; returns what they return or raise."""

    def outcome(function):
        try:
            return function()
        except Exception as error:
            return error

    def run(*functions):
        with ThreadPoolExecutor(len(functions)) as pool:
            return [future.result() for future in [pool.submit(outcome, one) for one in functions]]

    return run


def lead(ranks):
    ranks.gather()
    ranks.start(to_do=[0, 2])


def follow(ranks):
    ranks.find_rank_0()
    return ranks.follow()


def meet(both, *all_ranks):
    first, *others = all_ranks
    return both(lambda: lead(first), *(lambda one=one: follow(one) for one in others))


def test_the_others_get_what_rank_0_gives(make, both):
    assert meet(both, make(0), make(1)) == [None, {"to_do": [0, 2]}]


def test_files_of_an_earlier_start_do_not_count(make, both, tmp_path):
    meet(both, make(0, launch="before"), make(1, launch="before"))
    assert (tmp_path / RANKS / "start.json").is_file()

    outcomes = meet(both, make(0), make(1))

    assert outcomes == [None, {"to_do": [0, 2]}]


def test_a_process_of_an_earlier_start_of_the_same_name_gets_no_work(make, both):
    old = make(1)
    meet(both, make(0), old)
    first, second = make(0), make(1)

    def come_late():
        while (second._read(0) or {}).get("nonce") != first.nonce:
            time.sleep(0.01)
        old.update()  # it still works
        time.sleep(SHORT)
        return follow(second)

    assert both(lambda: lead(first), come_late) == [None, {"to_do": [0, 2]}]


def test_a_process_that_does_not_come_is_named(make, tmp_path):
    with pytest.raises(RankError, match=f"ranks 1, 2 of 3 did not show up in .*{tmp_path.name}"):
        make(0, 3, patience=SHORT).gather()


def test_without_rank_0_nothing_is_written(make, tmp_path):
    with pytest.raises(RankError, match=r"rank 0 did not show up in .*share it"):
        make(1, patience=SHORT).find_rank_0()

    assert list(tmp_path.iterdir()) == []


def test_processes_that_see_different_folders_say_so(make, both, tmp_path):
    first = make(0, patience=SHORT)
    second = make(1, patience=SHORT, folder=tmp_path / "elsewhere")

    led, followed = meet(both, first, second)

    assert "rank 1 of 2 did not show up" in str(led)
    assert "rank 0 did not show up" in str(followed)
    assert str(tmp_path / "elsewhere") in str(followed)


def test_another_set_of_images_is_refused_in_both(make, both):
    led, followed = meet(both, make(0), make(1, about={"images": "2"}))

    assert "rank 1 on" in str(led)
    assert "has other images than rank 0 on" in str(led)
    assert "'2', not '3'" in str(led)
    assert isinstance(followed, RefusedError)


def test_states_come_back_when_all_are_done(make, both):
    first, second = make(0), make(1)
    meet(both, first, second)
    second.update(state=DONE, failures={"a.png": "damaged"})

    assert first.wait_for_others()[1]["failures"] == {"a.png": "damaged"}


def test_a_failure_is_told_with_the_progress_of_all(make, both):
    first, second = make(0), make(1)
    meet(both, first, second)
    first.count(answered=3, of=3)
    second.update(state=FAILED, problem="disk full", answered=1, of=2)

    with pytest.raises(RankError) as told:
        first.wait_for_others()

    text = str(told.value)
    assert "rank 0 on" in text
    assert "3 of its 3 images are answered" in text
    assert "1 of its 2 images are answered; failed: disk full" in text
    assert "any number of processes" in text


@pytest.fixture
def change(tmp_path):
    """Changes what a process has written."""

    def changed(rank, **changes):
        path = tmp_path / RANKS / f"{rank}.json"
        state = {**json.loads(path.read_text(encoding="utf-8")), **changes}
        path.write_text(json.dumps(state), encoding="utf-8")

    return changed


@pytest.mark.parametrize("kernel", ["", "of another machine"])
def test_a_process_of_another_machine_lives_as_long_as_it_beats(make, both, change, kernel):
    first, second = make(0), make(1)
    meet(both, first, second)
    first._patience = 0
    ended = "has ended without a word"

    change(1, kernel=kernel)
    assert ended not in first.progress()
    change(1, beat=7)
    assert ended not in first.progress()
    assert ended in first.progress()
    with pytest.raises(RankError, match=ended):
        first.wait_for_others()


def test_processes_that_were_suspended_together_are_not_dead(make, both, change, monkeypatch):
    first, second = make(0), make(1)
    meet(both, first, second)
    change(1, kernel="of another machine")
    assert not first._is_lost(1)

    now = time.monotonic()
    # Not of the whole process: servers of other tests would sleep for an hour.
    monkeypatch.setattr(rank_folder, "time", SimpleNamespace(monotonic=lambda: now + 3600))

    assert not first._is_lost(1)


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs /proc")
def test_a_process_of_this_machine_is_dead_at_once(make, both, change):
    first, second = make(0), make(1)
    meet(both, first, second)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    change(1, pid=gone.pid)

    with pytest.raises(RankError, match=r"rank 1 on .*; it has ended without a word"):
        first.wait_for_others()
