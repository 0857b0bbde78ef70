"""The documentation: examples run, commands are valid, links lead somewhere, images are current."""

from __future__ import annotations

import hashlib
import json
import re
import sys

import pytest
import yaml
from doc_blocks import ROOT, blocks_of, check, commands_of, read, run_block
from lavis.common.registry import registry

from lavis_dynrefer.metrics.java_tools import meteor_kept
from lavis_dynrefer.models import llms
from lavis_dynrefer.synthetic import make_scene, render, write_dataset
from lavis_dynrefer.views import POLICIES

PAGES = [
    *("README.md", "CONTRIBUTING.md", "projects/dynrefer/README.md"),
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
]
# Filled from the source when the site is built; see test_documentation_site.py.
REFERENCE = sorted(f"docs/reference/{path.name}" for path in (ROOT / "docs/reference").glob("*.md"))
OWN_TESTS = {  # pages whose blocks run in other tests, with what they lead to
    "docs/serve.md": "serve/test_serve_docs.py",
    "docs/train_on_your_data.md": "test_train_on_your_data.py",
}
TESTED_HERE = [page for page in PAGES if page not in OWN_TESTS]


@pytest.fixture(scope="module")
def one_java():
    """METEOR starts once for all pages: it takes seconds."""
    with meteor_kept():
        yield


@pytest.fixture
def here(tmp_path, monkeypatch, one_java):
    """A folder with the files that the pages assume; registered examples are removed again."""
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


RUN_PAGES = [page for page in TESTED_HERE if any(block.use == "run" for block in blocks_of(page))]


@pytest.mark.parametrize("page", RUN_PAGES)
def test_examples_of_a_page_run(page, here):
    names = {"__name__": "__main__"}
    for block in blocks_of(page):
        if block.use in ("run", "file"):
            run_block(block, names)


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


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/serve.md"])
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


@pytest.mark.parametrize("page", [*PAGES, *REFERENCE])
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
