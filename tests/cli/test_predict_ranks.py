"""Several processes answer what one answers: in one output, whoever dies, however it is resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lavis_dynrefer import cores
from lavis_dynrefer.cli.predict.ranks.rank_folder import RANKS, RankError, RankFolder
from lavis_dynrefer.cli.predict.ranks.rank_run import _check_part
from lavis_dynrefer.formats import FORMATS, read_results
from lavis_dynrefer.synthetic import make_scene, render

FEW = ["--tasks", "categories", "--categories", "flower,tree"]
MODULE = ["-m", "lavis_dynrefer.cli", "predict"]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


def of_slurm(rank, world):
    return {
        **ONE_THREAD,
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": str(rank),
        "SLURM_STEP_NUM_TASKS": str(world),
        "SLURM_LOCALID": str(rank),
        "SLURM_STEP_TASKS_PER_NODE": str(world),
    }


def start(arguments, **variables):
    """A process of `dynrefer predict`."""
    return subprocess.Popen(
        [sys.executable, *MODULE, *map(str, arguments)],
        env={**os.environ, **ONE_THREAD, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


def torchrun(number, arguments):
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={number}"]
    return subprocess.run(
        [*command, "--rdzv_backend=c10d", *MODULE, *map(str, arguments)],
        env={**os.environ, **ONE_THREAD},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )


def content(folder):
    """Name of each file -> its content; json as values with rounded numbers."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            text = path.read_bytes()
            if path.suffix in (".json", ".jsonl", ".csv"):
                text = rounded(text.decode("utf-8"))
            found[path.relative_to(folder).as_posix()] = text
    return found


def rounded(text):
    """Text with its numbers rounded: batches of other images round otherwise."""
    words = text.replace(",", " , ").replace("}", " }").replace("]", " ]").split()
    return [
        f"{float(word):.3g}" if word.count(".") == 1 and is_number(word) else word for word in words
    ]


def is_number(word):
    try:
        float(word)
    except ValueError:
        return False
    return True


def test_two_processes_write_what_one_writes(scenes, predict, tmp_path, monkeypatch, capsys):
    folder, _ = scenes
    (tmp_path / "in").mkdir()
    for path in folder.glob("*.png"):
        (tmp_path / "in" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "in" / "scene 1.png").write_bytes(b"no image")
    arguments = [tmp_path / "in", "--boxes", folder / "boxes.json", *FEW, "--format", "csv"]
    assert predict(*arguments, "--output", tmp_path / "one") == 3
    alone = capsys.readouterr()

    other = start([*arguments, "--output", tmp_path / "two"], **of_slurm(1, 2))
    monkeypatch.setattr(cores, "_limit", None)
    for name, value in of_slurm(0, 2).items():
        monkeypatch.setenv(name, value)
    assert predict(*arguments, "--output", tmp_path / "two") == 3

    assert other.communicate() == ("", None)
    assert other.returncode == 0
    assert content(tmp_path / "two") == content(tmp_path / "one")
    both = capsys.readouterr()
    assert both.err == alone.err
    assert both.out.replace(str(tmp_path / "two"), str(tmp_path / "one")) == alone.out


def test_several_processes_need_an_output(image, predict, monkeypatch, capsys):
    monkeypatch.setattr(cores, "_limit", None)
    for name, value in of_slurm(0, 2).items():
        monkeypatch.setenv(name, value)

    assert predict(image, "--whole-image", *FEW) == 2

    assert "2 processes need --output" in capsys.readouterr().err


def test_a_file_of_answers_that_is_seen_in_part_is_refused(tmp_path):
    state = {"machine": "b", "answered": 2}

    with pytest.raises(RankError, match=r"answers about 0 images, but b has written 2\. Run the"):
        _check_part(tmp_path / "part-1-x.jsonl", state)

    _check_part(tmp_path / "part-1-x.jsonl", {**state, "answered": 0})


def test_progress_is_told_line_by_line(image, predict, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cores, "_limit", None)
    for name, value in of_slurm(0, 2).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(RankFolder, "gather", _interrupt)

    assert predict(image, "--whole-image", *FEW, "--output", tmp_path / "out") == 130

    assert "finished\n  rank 0 on " in capsys.readouterr().err


def _interrupt(ranks):
    raise KeyboardInterrupt


# ---- with torchrun


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Arguments about 24 images, one of them damaged."""
    folder, boxes = tmp_path_factory.mktemp("many"), {}
    (folder / "in").mkdir()
    for number in range(24):
        scene = make_scene(0, 2_000_001 + number)
        render(scene).save(folder / "in" / f"{number:02}.png")
        boxes[f"{number:02}.png"] = [list(item.box) for item in scene.objects[: number % 3 + 1]]
    (folder / "in" / "05.png").write_bytes(b"no image")
    (folder / "boxes.json").write_text(json.dumps(boxes), encoding="utf-8")
    questions = ["--tasks", "caption,categories", "--categories", "flower,tree"]
    return [folder / "in", "--boxes", folder / "boxes.json", *questions, "--chunk", "2"]


@pytest.fixture(scope="module")
def whole(many, tmp_path_factory):
    """What a single process makes of them."""
    output = tmp_path_factory.mktemp("whole")
    run = start([*many, "--output", output, "--draw", "--format", ",".join(FORMATS)])
    text, _ = run.communicate()
    assert run.returncode == 3, text
    assert "05.png" in text
    return content(output)


def broken_off(many, output, number, kill=1):
    """Start processes as srun does, and kill one of them once it has answered something."""
    runs = [
        start([*many, "--output", output, "--draw"], **of_slurm(rank, number))
        for rank in range(number)
    ]
    rows = ""
    while rows.count("\n") < 2:
        assert runs[kill].poll() is None, runs[kill].communicate()
        time.sleep(0.02)
        parts = list((output / RANKS).glob(f"part-{kill}-*.jsonl"))
        rows = parts[0].read_text(encoding="utf-8") if parts else ""
    runs[kill].send_signal(signal.SIGKILL)
    texts = [run.communicate()[0] for run in runs]
    return [run.returncode for run in runs], texts


@pytest.mark.slow
def test_torchrun_gives_all_files_of_a_single_process(many, whole, tmp_path):
    run = torchrun(3, [*many, "--output", tmp_path, "--draw", "--format", ",".join(FORMATS)])

    assert run.returncode == 1  # torchrun's, for 3 of rank 0
    assert run.stdout.count("\n  05.png: ") == 1
    assert content(tmp_path) == whole


@pytest.mark.slow
def test_pages_are_shared_too(many, tmp_path):
    names = [f"--output={tmp_path / name}" for name in ("one", "two")]
    alone = start([*many, names[0], "--explain"])
    alone.communicate()
    torchrun(2, [*many, names[1], "--explain"])

    pages = [
        sorted(p.name for p in (tmp_path / name / "explain").iterdir()) for name in ("one", "two")
    ]
    assert len(pages[0]) == 23
    assert pages[1] == pages[0]


@pytest.mark.slow
def test_one_file_appears_at_the_end(many, whole, tmp_path):
    run = torchrun(2, [*many, "--output", tmp_path / "answers.json"])

    assert "images: 23" in run.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["answers.json"]
    assert rounded((tmp_path / "answers.json").read_text(encoding="utf-8")) == whole["results.json"]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a process")
@pytest.mark.parametrize("resumed_by", [1, 2, 3])
def test_a_killed_process_is_told_and_any_number_continues(many, whole, tmp_path, resumed_by):
    codes, texts = broken_off(many, tmp_path, 2)

    assert codes == [5, -signal.SIGKILL]
    assert "rank 0 on " in texts[0]
    assert "12 of its 12 images are answered\n" in texts[0]
    assert "of its 12 images are answered; it has ended without a word" in texts[0]
    assert "Run the same command again, with any number of processes" in texts[0]
    assert not (tmp_path / "results.jsonl").read_text(encoding="utf-8")
    before = [read_results(path) for path in (tmp_path / RANKS).glob("part-*.jsonl")]
    assert sum(map(len, before)) > 12

    command = [*many, "--output", tmp_path, "--draw", "--format", ",".join(FORMATS)]
    if resumed_by == 1:
        again = start(command)
        again.communicate()
        assert again.returncode == 3
    else:
        assert torchrun(resumed_by, command).returncode == 1
    assert content(tmp_path) == whole


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_processes_continue_a_run_of_one(many, whole, tmp_path):
    rows = tmp_path / "results.jsonl"
    run = start([*many, "--output", tmp_path])
    while not rows.is_file() or rows.read_text(encoding="utf-8").count("\n") < 5:
        assert run.poll() is None
        time.sleep(0.02)
    run.kill()
    run.communicate()

    torchrun(2, [*many, "--output", tmp_path, "--draw", "--format", ",".join(FORMATS)])

    assert content(tmp_path) == whole


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_the_end_of_rank_0_leaves_the_answers_of_the_others(many, whole, tmp_path):
    codes, _ = broken_off(many, tmp_path, 2, kill=0)

    assert codes == [-signal.SIGKILL, 0]
    again = start([*many, "--output", tmp_path, "--draw", "--format", ",".join(FORMATS)])
    again.communicate()
    assert content(tmp_path) == whole


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_torchrun_ends_all_and_the_progress_is_told_once(many, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=3"]
    run = subprocess.Popen(
        [*command, "--rdzv_backend=c10d", *MODULE, *map(str, many), "--output", tmp_path],
        env={**os.environ, **ONE_THREAD},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    state = tmp_path / RANKS / "2.json"
    while not list((tmp_path / RANKS).glob("part-2-*.jsonl")):
        assert run.poll() is None
        time.sleep(0.02)
    os.kill(json.loads(state.read_text(encoding="utf-8"))["pid"], signal.SIGKILL)
    text, _ = run.communicate()

    assert run.returncode == 1
    assert text.count("not all processes have finished") == 1
    assert text.count("rank 2 on ") == 1
    assert "it has ended without a word" in text
    assert not Path(tmp_path / "results.jsonl").read_text(encoding="utf-8")


@pytest.mark.slow
def test_what_all_get_wrong_is_said_once(many, tmp_path):
    run = torchrun(
        2, [*many[:1], "--boxes", tmp_path / "absent.json", "--output", tmp_path / "out"]
    )

    assert run.returncode == 1
    assert run.stdout.count("absent.json") == 1
    assert not (tmp_path / "out").exists()
