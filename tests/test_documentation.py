"""The documentation: examples run, commands are valid, links lead somewhere, images are current.

A comment before each block of shell or Python says what happens to it here:

    <!-- run -->                 run, in the order of the page, in a folder of that page
    <!-- file: NAME -->          written into that folder
    <!-- not run: REASON -->     our commands are still checked: arguments, yaml, options
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import re
import runpy
import shlex
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from lavis.common.registry import registry
from torch.distributed.run import get_args_parser

from lavis_dynrefer.cli import COMMANDS, main
from lavis_dynrefer.metrics import java_tools
from lavis_dynrefer.models import llms
from lavis_dynrefer.synthetic import make_scene, render, write_dataset
from lavis_dynrefer.training.checks.file_checks import check_file
from lavis_dynrefer.training.launch import evaluate_main, train_main
from lavis_dynrefer.views import POLICIES

ROOT = Path(__file__).parents[1]
PAGES = [
    *("README.md", "CONTRIBUTING.md", "projects/dynrefer/README.md"),
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
]
OWN_TESTS = {  # pages whose blocks run in other tests, with what they lead to
    "docs/serve.md": "serve/test_serve_docs.py",
    "docs/train_on_your_data.md": "test_train_on_your_data.py",
}
TESTED_HERE = [page for page in PAGES if page not in OWN_TESTS]
LAUNCHERS = {
    f"{package}.{word}": launcher
    for package in ("lavis", "lavis_dynrefer")
    for word, launcher in (("train", train_main), ("evaluate", evaluate_main))
}


class Block(NamedTuple):
    """A fenced block: its line in the page, what happens to it, file name or reason, content."""

    line: int
    use: str
    detail: str
    language: str
    text: str


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def blocks_of(page):
    text = read(page)
    found = re.finditer(r"(?:<!-- ([^\n]+) -->\n)?^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.M)
    return [
        Block(text.count("\n", 0, match.start(2)) + 1, use, detail, match[2], match[3])
        for match in found
        for use, _, detail in [(match[1] or "").partition(": ")]
    ]


def commands_of(block):
    """The command lines of a block of shell, without comments, continued lines joined."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.fixture
def here(tmp_path, monkeypatch, meteor):
    """A folder with the files that the pages assume; registered examples are removed again."""
    monkeypatch.setattr(java_tools, "Meteor", lambda: nullcontext(meteor))  # takes seconds
    write_dataset(tmp_path / "data", scenes=3, seed=0)
    (tmp_path / "data/vg").rename(tmp_path / "vg")
    for name in ("scene.jpg", "photo.jpg"):
        render(make_scene(0, 2_000_001)).save(tmp_path / name)
    (tmp_path / "tags.txt").write_text("man\nbaseball bat\nbat\n", encoding="utf-8")
    (tmp_path / "photos").mkdir()
    boxes = {}
    for number in (2, 3):
        scene, name = make_scene(0, number), f"{number}.jpg"
        render(scene).save(tmp_path / "photos" / name)
        boxes[name] = [list(map(float, item.box)) for item in scene.objects]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DYNREFER_CACHE", str(tmp_path / "cache"))
    for kind in ("builder_name_mapping", "model_name_mapping", "paths"):
        monkeypatch.setitem(registry.mapping, kind, dict(registry.mapping[kind]))
    monkeypatch.setattr(llms, "__path__", list(llms.__path__))
    policies, modules = dict(POLICIES), set(sys.modules)
    yield tmp_path
    POLICIES.clear()
    POLICIES.update(policies)
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


def run_command(words):
    """Exit code of a command; ours run in this process, which has already imported LAVIS."""
    if words[0] == "dynrefer":
        return main(words[1:])
    if words[:2] == ["python", "-m"] and words[2] in LAUNCHERS:
        return LAUNCHERS[words[2]](words[3:])
    if words[0] != "python":
        return subprocess.run(words).returncode
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words[1:])
        try:
            runpy.run_path(words[1], run_name="__main__")
        except SystemExit as stopped:
            return stopped.code
    return 0


def run_block(block, names):
    if block.use == "file":
        Path(block.detail).parent.mkdir(parents=True, exist_ok=True)
        Path(block.detail).write_text(block.text, encoding="utf-8")
    elif block.language == "python":
        exec(compile(block.text, f"the block in line {block.line}", "exec"), names)
    else:
        for words in commands_of(block):
            assert run_command(words) == 0, shlex.join(words)


RUN_PAGES = [page for page in TESTED_HERE if any(block.use == "run" for block in blocks_of(page))]


@pytest.mark.parametrize("page", RUN_PAGES)
def test_examples_of_a_page_run(page, here):
    names = {"__name__": "__main__"}
    for block in blocks_of(page):
        if block.use in ("run", "file"):
            run_block(block, names)


def check(words):
    """Check a command as far as possible without running it."""
    while "=" in words[0]:  # environment variables
        words = words[1:]
    if words[0] == "torchrun":
        arguments = get_args_parser().parse_args(words[1:])
        if arguments.module:
            check(["python", "-m", arguments.training_script, *arguments.training_script_args])
    elif words[1] == "-m" and words[2] in LAUNCHERS:
        check_launch(words[3:])
    elif words[0].endswith("dynrefer"):
        parser = argparse.ArgumentParser(prog=" ".join(words[:2]))
        importlib.import_module(COMMANDS[words[1]][0]).add_arguments(parser)
        parser.parse_args(words[2:])


def check_launch(words):
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-path", required=True)
    parser.add_argument("--options", nargs="+", default=[])
    arguments = parser.parse_args(words)
    findings = check_file(arguments.cfg_path, arguments.options)
    assert [finding.text for finding in findings if finding.fatal] == []


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=f"{page}:{block.line}")
        for page in TESTED_HERE
        for block in blocks_of(page)
        if block.language == "bash" and block.use == "not run"
    ],
)
def test_commands_that_are_not_run_are_valid(block, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DYNREFER_CACHE", str(tmp_path))
    for words in commands_of(block):
        check(words)


@pytest.mark.parametrize("page", TESTED_HERE)
def test_every_block_says_what_happens_to_it(page):
    assert len(re.findall(r"^```", read(page), re.M)) == 2 * len(blocks_of(page))
    silent = [
        block.line
        for block in blocks_of(page)
        if block.language in ("bash", "python")
        and block.use != "run"
        and not (block.use in ("file", "not run") and block.detail)
    ]
    assert silent == []


@pytest.mark.parametrize("page", sorted(OWN_TESTS))
def test_pages_with_tests_of_their_own_have_them(page):
    assert page.split("/")[-1] in (ROOT / "tests" / OWN_TESTS[page]).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_settings_are_valid_yaml_and_json(page):
    load = {"yaml": yaml.safe_load, "json": json.loads}
    for block in blocks_of(page):
        assert block.language not in load or load[block.language](block.text), block.line


def prose(page):
    return re.sub(r"^```.*?^```$", "", read(page), flags=re.DOTALL | re.M)


def broken_links(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        name, _, anchor = target.partition("#")
        path = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        if target.startswith("http"):
            continue
        headings = re.findall(r"^#+ (.+)$", prose(path), re.M) if anchor else []
        anchors = {re.sub(r"[^\w\- ]", "", text).lower().replace(" ", "-") for text in headings}
        if not path.exists() or (anchor and anchor not in anchors):
            yield target


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    assert list(broken_links(page)) == []


def test_the_index_names_every_page():
    assert "](docs/README.md)" in read("README.md")
    linked = set(re.findall(r"\]\((\w+\.md)[#)]", read("docs/README.md")))
    pages = {name.split("/")[1] for name in PAGES if name.startswith("docs/")}
    assert pages - linked == {"README.md"}


def test_contributing_describes_every_room():
    table = read("CONTRIBUTING.md").split("## The rooms")[1].split("## Recipes")[0]
    rooms = {
        path.name + "/" * path.is_dir()
        for path in (ROOT / "lavis_dynrefer").iterdir()
        if path.name[0] not in "_." and path.suffix in ("", ".py")
    }
    not_code = {"assets/", "train.py", "evaluate.py"}
    assert {room for room in rooms - not_code if f"`{room}`" not in table} == set()


def test_images_are_made_by_the_shipped_model():
    made_from = json.loads(read("docs/images/made_from.json"))
    shipped = {
        name: hashlib.sha256((ROOT / "lavis_dynrefer" / name).read_bytes()).hexdigest()
        for name in made_from
    }
    assert made_from == shipped, "make them again: python docs/images/make.py"


def test_every_image_is_made_by_the_script_shown_and_small():
    images = [path for path in (ROOT / "docs").rglob("*") if path.suffix in (".jpg", ".png")]
    script, pages = read("docs/images/make.py"), "".join(map(read, PAGES))
    assert [path.name for path in images if f'"{path.name}"' not in script] == []
    assert [path.name for path in images if f"images/{path.name})" not in pages] == []
    assert [path.name for path in images if path.stat().st_size > 150_000] == []
