"""Every page as its reader does it: commands run or are checked, examples work, links lead on.

A comment before each block of shell or Python says what becomes of it here:

    <!-- run -->                 performed, in the order of the page, in a folder of that page
    <!-- file: NAME -->          written into that folder
    <!-- not run: REASON -->     commands of ours are still checked: arguments, yaml, options
"""

from __future__ import annotations

import argparse
import importlib.util
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

import lavis_dynrefer  # noqa: F401  registers with LAVIS
from lavis_dynrefer.cli import COMMANDS, main
from lavis_dynrefer.cli.validate import validate
from lavis_dynrefer.metrics import java_tools
from lavis_dynrefer.models import llms
from lavis_dynrefer.synthetic import make_scene, render
from lavis_dynrefer.training.launch import evaluate_main, train_main
from lavis_dynrefer.views.policies import POLICIES

ROOT = Path(__file__).parents[1]
PAGES = [
    *("README.md", "CONTRIBUTING.md", "projects/dynrefer/README.md"),
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
]
OWN_TESTS = {  # pages whose blocks are performed elsewhere, with what they lead to
    "docs/data.md": "test_data_page.py",
    "docs/serve.md": "serve/test_serve_docs.py",
    "docs/train_on_your_data.md": "test_train_on_your_data.py",
}
LAUNCHERS = {
    f"{package}.{word}": launcher
    for package in ("lavis", "lavis_dynrefer")
    for word, launcher in (("train", train_main), ("evaluate", evaluate_main))
}
CODE = ("bash", "python")


class Block(NamedTuple):
    """A fenced block: its line in the page, what becomes of it, the file or reason, its content."""

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
    """The command lines of a block of shell, with continued lines joined and comments left out."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


# ---- what is performed ----------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch, meteor):
    """The reader's folder; what the examples register is forgotten again."""
    monkeypatch.setattr(java_tools, "Meteor", lambda: nullcontext(meteor))  # takes seconds
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


def perform(words):
    """Exit code of a command; ours run in this process, which has LAVIS imported already."""
    if words[0] == "dynrefer":
        return main(words[1:])
    if words[:2] == ["python", "-m"] and words[2] in LAUNCHERS:
        return LAUNCHERS[words[2]](words[3:])
    if words[0] == "python":
        return perform_script(words[1:])
    return subprocess.run(words).returncode


def perform_script(words):
    """Exit code of a script of the reader's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)
        try:
            runpy.run_path(words[0], run_name="__main__")
        except SystemExit as stopped:
            return stopped.code
    return 0


def perform_block(block, names):
    if block.use == "file":
        Path(block.detail).parent.mkdir(parents=True, exist_ok=True)
        Path(block.detail).write_text(block.text, encoding="utf-8")
    elif block.language == "python":
        exec(compile(block.text, f"the block in line {block.line}", "exec"), names)
    else:
        for words in commands_of(block):
            assert perform(words) == 0, shlex.join(words)


PERFORMED = [
    page
    for page in PAGES
    if page not in OWN_TESTS and any(block.use == "run" for block in blocks_of(page))
]


@pytest.mark.parametrize("page", PERFORMED)
def test_what_a_page_says_can_be_done(page, here):
    names = {"__name__": "__main__"}
    for block in blocks_of(page):
        if block.use in ("run", "file"):
            perform_block(block, names)


# ---- what is only checked -------------------------------------------------------------------


def check(words):
    """Refuse what would be refused before anything is read or built."""
    while "=" in words[0]:  # environment variables
        words = words[1:]
    if words[0] == "torchrun":
        arguments = get_args_parser().parse_args(words[1:])
        if arguments.module:
            check(["python", "-m", arguments.training_script, *arguments.training_script_args])
    elif words[:2] in (["python", "-m"], ["python3", "-m"]):
        if words[2] in LAUNCHERS:
            check_launch(words[3:])
        elif words[2].startswith("lavis_dynrefer"):
            assert importlib.util.find_spec(words[2]) is not None
    elif words[0].endswith("dynrefer"):
        check_command(words[1], words[2:])


def check_launch(words):
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-path", required=True)
    parser.add_argument("--options", nargs="+", default=[])
    parser.add_argument("--debug", action="store_true")
    arguments = parser.parse_args(words)
    findings = validate(arguments.cfg_path, arguments.options)
    assert [finding.text for finding in findings if finding.fatal] == []


def check_command(name, words):
    parser = argparse.ArgumentParser(prog=f"dynrefer {name}")
    COMMANDS[name].add_arguments(parser)
    parser.parse_args(words)


CHECKED = [
    pytest.param(block, id=f"{page}:{block.line}")
    for page in PAGES
    for block in blocks_of(page)
    if page not in OWN_TESTS and block.language == "bash" and block.use == "not run"
]


@pytest.mark.parametrize("block", CHECKED)
def test_commands_that_are_not_run_are_valid(block, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DYNREFER_CACHE", str(tmp_path))
    for words in commands_of(block):
        check(words)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in OWN_TESTS])
def test_every_block_of_code_says_what_becomes_of_it(page):
    silent = [
        block.line
        for block in blocks_of(page)
        if block.language in CODE
        and block.use != "run"
        and not (block.use in ("file", "not run") and block.detail)
    ]
    assert silent == []


@pytest.mark.parametrize("page", sorted(OWN_TESTS))
def test_pages_with_tests_of_their_own_have_them(page):
    assert page.split("/")[-1] in (ROOT / "tests" / OWN_TESTS[page]).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_settings_shown_are_yaml_and_json(page):
    for block in blocks_of(page):
        if block.language == "yaml":
            assert yaml.safe_load(block.text), block.line
        elif block.language == "json":
            assert json.loads(block.text), block.line


@pytest.mark.parametrize("page", PAGES)
def test_every_fence_is_closed(page):
    assert len(re.findall(r"^```", read(page), re.M)) == 2 * len(blocks_of(page))


# ---- links ----------------------------------------------------------------------------------


def anchors_of(page):
    """The anchors GitHub gives the headings."""
    text = re.sub(r"^```.*?^```$", "", read(page), flags=re.DOTALL | re.M)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def broken_links(page):
    text = re.sub(r"^```.*?^```$", "", read(page), flags=re.DOTALL | re.M)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        path = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        if not path.exists() or (anchor and anchor not in anchors_of(path.relative_to(ROOT))):
            yield target


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    assert list(broken_links(page)) == []


def test_the_index_names_every_page():
    linked = set(re.findall(r"\]\((\w+\.md)[#)]", read("docs/README.md")))
    pages = {name.split("/")[1] for name in PAGES if name.startswith("docs/")}
    assert pages - linked == {"README.md"}


def test_the_images_of_the_tour_are_made_by_its_commands():
    script = read("docs/images/tour.sh").replace("\\\n", " ").splitlines()
    performed = [shlex.split(line) for line in script if line.startswith("dynrefer")]
    blocks = [block for block in blocks_of("docs/tour.md") if block.language == "bash"]
    shown = [words for block in blocks for words in commands_of(block)]
    assert [words for words in performed if words not in shown] == []
    assert len(performed) == 3


def test_readme_leads_to_the_index():
    assert "](docs/README.md)" in read("README.md")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs/images").glob("*.jpg")), ids=lambda path: path.name
)
def test_images_of_the_pages_are_small(path):
    assert path.stat().st_size <= 150_000
