"""What differs on macOS, Windows and in containers, imitated here."""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from fresh_interpreter import ROOT, run_python
from PIL import Image
from safetensors.numpy import save_file

from lavis_dynrefer import paths
from lavis_dynrefer.cli import main
from lavis_dynrefer.cli.predict.predict_images import find_images
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.json_stream import replace_bytes, replacing
from lavis_dynrefer.lab.benchmarks import resource_usage
from lavis_dynrefer.models.precision import choose_device
from lavis_dynrefer.models.weights.tensor_reading import file_digest
from lavis_dynrefer.training import launch
from lavis_dynrefer.training.checkpoints import read_checkpoint, write_checkpoint
from lavis_dynrefer.training.run_config import LaunchError, read_options

# What some system lacks, or does otherwise -> the modules that know about it.
ASKED_IN_ONE_PLACE = {
    r"os\.(replace|rename)\(|\.rename\(": ("paths", "pretrained"),  # an open file of Windows
    r"\.expanduser\(": ("paths",),  # a user without a home
    r"sched_getaffinity|os.cpu_count": ("cores", "resource_usage"),
    r"getloadavg|\"/(proc|sys)/": ("cores", "resource_usage", "living_processes"),
    r"\"SIG(HUP|BREAK|QUIT|ALRM|KILL|USR)": ("ending_signals", "stop_signals"),
    r"signal\.SIG(HUP|BREAK|QUIT|ALRM|KILL|USR)": (),
    r"^\s*(import|from) (fcntl|resource|pwd|grp|termios|msvcrt|winreg)\b": (),
    r"os\.(fork|getuid|geteuid|killpg|symlink|link|chmod|mkfifo)\(": (),
    r"\"/tmp|\"/dev/|\"C:": (),
    r"AF_UNIX|get_context\(\"fork": (),
}


@pytest.mark.parametrize("pattern", ASKED_IN_ONE_PLACE)
def test_what_systems_lack_is_asked_in_one_place(pattern):
    code = re.compile(pattern, re.MULTILINE)
    users = {
        file.stem
        for file in (ROOT / "lavis_dynrefer").rglob("*.py")
        if code.search(file.read_text(encoding="utf-8"))
    }
    assert users <= set(ASKED_IN_ONE_PLACE[pattern])


def write_text(path, content):
    with replacing(path) as file:
        file.write(content)


def write_bytes(path, content):
    replace_bytes(path, content.encode())


def write_run(path, content):
    write_checkpoint(path, {"model": {}, "optimizer": {}, "epoch": int(content)})


WRITERS = [write_text, write_bytes, write_run]


@pytest.fixture
def open_elsewhere(monkeypatch):
    """Call it with a number: so many renamings fail as on Windows, where somebody reads a file."""
    real = os.replace

    def fail(times):
        left = [times]

        def replace(source, target):
            left[0] -= 1
            if left[0] >= 0:
                raise PermissionError(13, "Permission denied", str(source), None, str(target))
            real(source, target)

        monkeypatch.setattr(os, "replace", replace)
        monkeypatch.setattr(paths, "_ON_WINDOWS", True)
        monkeypatch.setattr(paths.time, "sleep", lambda seconds: None)

    return fail


@pytest.mark.parametrize("write", WRITERS)
def test_a_file_that_is_open_elsewhere_is_waited_for(tmp_path, open_elsewhere, write):
    path = tmp_path / "file.pth"
    write(path, "1")
    open_elsewhere(2)
    write(path, "2")
    new = read_checkpoint(path)["epoch"] if write is write_run else int(path.read_bytes())
    assert new == 2
    assert [one.name for one in tmp_path.iterdir()] == ["file.pth"]


@pytest.mark.parametrize("write", WRITERS)
def test_a_file_that_stays_open_elsewhere_is_unharmed(tmp_path, open_elsewhere, write):
    path = tmp_path / "file.pth"
    write(path, "1")
    before = path.read_bytes()
    open_elsewhere(100)
    with pytest.raises(InputError, match="Permission denied") as error:
        write(path, "2")
    assert str(path) in str(error.value)
    assert path.read_bytes() == before
    if write is not write_run:  # a run is continued instead
        kept = tmp_path / "file.pth.partial"
        assert f"the new file is {kept}" in str(error.value)
        assert kept.read_bytes() == b"2"


def test_arguments_that_are_no_text_are_named(capsys):
    bad = "annotations.train=caf\udcc3\udca9.json"  # UTF-8 in a locale that reads ASCII
    assert main(["prepare", "custom", "--set", bad]) == 2
    assert "error: --set annotations.train=caf" in capsys.readouterr().err
    with pytest.raises(LaunchError, match=r"run\.output_dir=caf"):
        read_options(["run.output_dir=caf\udcc3\udca9"])


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="names are always UTF-8")
def test_a_folder_whose_name_is_not_utf8_is_named(tmp_path, capsys):
    root = tmp_path / os.fsdecode(b"caf\xe9")
    root.mkdir()
    Image.new("RGB", (9, 9)).save(root / "1.png")
    content = {
        "images": [{"id": 1, "file_name": "1.png"}],
        "annotations": [{"id": 1, "image_id": 1, "bbox": [1, 1, 5, 5], "caption": "a dog"}],
    }
    (root / "a.json").write_text(json.dumps(content), encoding="utf-8")
    words = ["--root", str(root), "--images", str(root), "--set", "annotations.train=a.json"]
    assert main(["prepare", "custom", *words, "--output", str(root / "out")]) == 2
    assert "caf\\udce9/out" in capsys.readouterr().err.rpartition("error: ")[2]


@pytest.mark.skipif(os.name == "nt", reason="drives that Windows has")
def test_images_on_two_drives_have_their_paths_as_names(tmp_path, monkeypatch):
    def two_drives(folders):
        raise ValueError("Paths don't have the same drive")

    for folder in ("c", "d"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_bytes(b"")
    monkeypatch.setattr(os.path, "commonpath", two_drives)
    images, _ = find_images([tmp_path / "c", tmp_path / "d"], recursive=False)
    assert list(images) == [(tmp_path / name / "1.png").as_posix() for name in "cd"]


@pytest.mark.parametrize(("encoding", "warned"), [("utf-8", 0), ("UTF8", 0), ("ascii", 1)])
def test_file_names_that_are_not_utf8_are_warned_about(monkeypatch, capsys, encoding, warned):
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: encoding)
    assert main(["validate", "missing.yaml"]) == 2
    assert capsys.readouterr().err.count("warning: this locale reads file names as") == warned


def test_a_current_folder_that_is_gone_is_named(monkeypatch, capsys):
    def gone():
        raise FileNotFoundError

    monkeypatch.setattr(os, "getcwd", gone)
    assert main(["validate", "run.yaml"]) == 2
    assert launch.train_main(["--cfg-path", "run.yaml"]) == 2
    assert capsys.readouterr().err.count("error: the current folder has been deleted") == 2


def test_a_user_without_home_or_name(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", os.fspath)  # as it answers without a home
    monkeypatch.delenv(paths.CACHE_VARIABLE)
    with pytest.raises(FileNotFoundError, match="set HOME, or set DYNREFER_CACHE"):
        paths.cache_dir()
    (tmp_path / "file").write_bytes(b"")
    assert file_digest(tmp_path / "file").startswith("e3b0c44298fc1c14")  # sha256 of nothing

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "")
    monkeypatch.setitem(sys.modules, "pwd", None)
    launch._give_user_a_name()
    assert getpass.getuser() == "unknown"


def test_a_folder_may_begin_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert paths.expand_home("~backup of nobody") == Path("~backup of nobody")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert paths.expand_home("~/data") == tmp_path / "data"


def test_paths_with_brackets_are_printed_as_they_are(tmp_path, capsys):
    folder = tmp_path / "[red] [b] :dog: 'x' #1 100%"
    folder.mkdir()
    save_file({"a": np.zeros(2, np.float32)}, folder / "a.safetensors")
    output = folder / f"{'long ' * 20}.safetensors"
    assert main(["export", str(folder / "a.safetensors"), str(output)]) == 0
    assert f"1 tensors, 0.0 MiB: {output}\n" in capsys.readouterr().out


def test_machines_without_a_load_and_proc(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "getloadavg", raising=False)
    monkeypatch.setattr(resource_usage, "_STATUS", tmp_path / "status")
    monkeypatch.setattr(resource_usage, "_CPUS", tmp_path / "cpuinfo")
    machine = resource_usage.describe_machine()
    assert machine["load"] is None
    assert machine["processor"]
    assert resource_usage.resident_memory() == {}


def test_the_gpu_of_a_mac_is_not_chosen_unasked(monkeypatch):
    torch = sys.modules["torch"]
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"


# What Python lacks on Windows; a console that fails on what it lacks.
IMITATION = """
import multiprocessing, os, signal, sys
import torch.distributed.elastic.timer  # it asks for SIGKILL by the name of the system
multiprocessing.set_start_method("spawn")
for name in ("SIGHUP", "SIGKILL", "SIGQUIT", "SIGALRM", "SIGUSR1", "SIGUSR2", "pthread_sigmask"):
    if hasattr(signal, name):
        delattr(signal, name)
for name in ("fork", "getuid", "geteuid", "getloadavg", "killpg", "sched_getaffinity", "statvfs"):
    if hasattr(os, name):
        delattr(os, name)
for stream in (sys.stdout, sys.stderr):
    stream.reconfigure(encoding="ascii", errors="strict")
from lavis_dynrefer.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_predict_as_on_windows_with_names_of_a_mac(tmp_path):
    folder = tmp_path / "Bilder \u00fc [1] 'x' #1 50%"
    folder.mkdir()
    names = ["caf\u00e9 \u72d7.png", "\u00c5ngstr\u00f6m.png"]
    for name in names:
        image = Image.linear_gradient("L").resize((90, 60))
        image.save(folder / unicodedata.normalize("NFD", name))
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / f"._{names[0]}").write_bytes(b"\0\5\26\7")
    boxes = {unicodedata.normalize("NFC", name): [[5, 5, 60, 50]] for name in names}
    (tmp_path / "b\u00f6xes.json").write_text(json.dumps(boxes), encoding="utf-8")
    output = tmp_path / "out \u00e9"
    words = [
        *("predict", str(folder), "--boxes", str(tmp_path / "b\u00f6xes.json")),
        *("--categories", "\u72d7,K\u00fcche", "--output", str(output), "--draw", "--explain"),
        *("--format", "jsonl,json,coco,csv,excel-csv,label-studio,fiftyone"),
    ]
    result = run_python(f"import sys\nsys.argv[1:] = {words!r}\n{IMITATION}")
    assert result.returncode == 0, result.stderr
    assert "images: 2, regions: 2" in result.stdout
    assert "skipped hidden and system files and folders: 1" in result.stderr
    rows = (output / "results.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 2
    assert {json.loads(row)["regions"][0]["categories"][0]["name"] for row in rows} <= {
        "\u72d7",
        "K\u00fcche",
    }
    assert len(list((output / "explain").iterdir())) == 2
