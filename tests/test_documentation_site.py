"""The documentation site: every page has a place, every public name is in the reference."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lavis_dynrefer import datasets
from lavis_dynrefer.cli import COMMANDS

ROOT = Path(__file__).parents[1]
SITE = ROOT / "docs" / "site"
PACKAGE = ROOT / "lavis_dynrefer"
REFERENCE = "\n".join(
    path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs/reference").glob("*.md"))
)
DOCUMENTED = set(
    re.findall(r"^\.\. (?:auto\w+|py:\w+):: (\S+)$", REFERENCE, re.M),
)
WITH_KEYS = [  # modules whose settings are keys of a yaml or options of the service
    *("config", "training.run_settings", "datasets.build_info"),
    *("models.llms.llm_options", "serve.service_limits"),
]
OF_THE_PACKAGE = {"PublishedFile", "PublishedPart"}  # keys that only our own yamls have


@pytest.fixture
def site_modules(monkeypatch):
    monkeypatch.syspath_prepend(str(SITE))


def public_names():
    """Full names of all that the packages offer in their `__all__`."""
    for path in sorted(PACKAGE.rglob("__init__.py")):
        if "\n__all__" in path.read_text(encoding="utf-8"):
            package = ".".join(path.parent.relative_to(ROOT).parts)
            for name in importlib.import_module(package).__all__:
                yield f"{package}.{name}"
    yield from (f"{datasets.__name__}.{name}" for name in datasets._HOMES)


def read_index():
    return (ROOT / "docs/README.md").read_text(encoding="utf-8")


def settings_classes(module):
    path = PACKAGE / (module.replace(".", "/") + ".py")
    for item in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(item, ast.ClassDef) and any(
            getattr(decorator, "id", "") == "settings" for decorator in item.decorator_list
        ):
            yield item.name


def test_a_link_to_a_whole_page_places_it_once(site_modules):
    from site_navigation import navigation

    index = (
        "# D\n[tour](tour.md)\n## Start\n[a](tour.md), [b](why.md#page)\n"
        "## Use\n[c](tour.md) [d](reference/x.md) [e](../README.md) [f](http://a.org/b.md)\n"
    )
    assert navigation(index) == {"Start": ["docs/tour"], "Use": ["docs/reference/x"]}


def test_every_page_is_in_the_navigation(site_modules):
    from site_navigation import navigation

    placed = [page for pages in navigation(read_index()).values() for page in pages]
    pages = {
        path.relative_to(ROOT).with_suffix("").as_posix()
        for folder in ("docs", "projects", "lavis_dynrefer/assets")
        for path in (ROOT / folder).rglob("*.md")
    }
    assert sorted(placed) == sorted({*pages, "CONTRIBUTING", "CHANGELOG"} - {"docs/README"})


def test_every_public_name_is_in_the_reference():
    assert sorted(set(public_names()) - DOCUMENTED) == []


def test_no_public_name_is_also_a_module():
    """An import of the module would put it in the place of the name."""
    both = [
        name
        for name in public_names()
        if (ROOT / name.replace(".", "/")).with_suffix(".py").exists()
    ]
    assert both == []


def test_every_command_is_in_the_reference():
    assert re.findall(r"^```\{command-options\} (\w.*)$", REFERENCE, re.M) == list(COMMANDS)


@pytest.mark.parametrize("module", WITH_KEYS)
def test_every_settings_class_has_a_table(module):
    shown = re.findall(rf"\{{settings-table\}} lavis_dynrefer\.{module}\.(\w+)$", REFERENCE, re.M)
    assert sorted(shown) == sorted(set(settings_classes(module)) - OF_THE_PACKAGE)


def test_a_table_tells_values_defaults_and_comments(site_modules):
    pytest.importorskip("sphinx")
    from settings_tables import comments_of, values_of

    from lavis_dynrefer.config import CaptioningConfig, GenerationConfig

    fields = GenerationConfig.__pydantic_fields__
    beams = fields["num_beams"]
    assert values_of(beams.annotation, beams.metadata) == "integer from 1 to 1,000"
    assert comments_of(GenerationConfig)["num_beams"] == "official base yaml; the demo uses 5"
    nested = CaptioningConfig.__pydantic_fields__["generation"]
    assert values_of(nested.annotation, nested.metadata) == "[GenerationConfig](#generationconfig)"


class Loaded(HTMLParser):
    """Addresses of what a page loads by itself, and its text."""

    def __init__(self):
        super().__init__()
        self.addresses, self.text = [], []

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        if tag in ("script", "img", "iframe"):
            self.addresses.append(named.get("src"))
        if tag == "link" and named.get("rel") in ("stylesheet", "preload", "icon"):
            self.addresses.append(named["href"])

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.slow
def test_the_built_site_is_complete_and_loads_nothing_from_elsewhere(tmp_path):
    for package in ("sphinx", "myst_parser", "furo", "sphinx_copybutton"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs/site", "."]
    built = subprocess.run([*command, tmp_path], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert (built.returncode, built.stderr) == (0, "")
    assert (tmp_path / "index.html").read_bytes() == (tmp_path / "README.html").read_bytes()
    pages = list(tmp_path.rglob("*.html"))
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        elsewhere = [item for item in loaded.addresses if item and re.match(r"\w+:|//", item)]
        assert [item for item in elsewhere if not item.startswith("data:")] == [], page
        assert not re.search(r"<!-- (run|not run|file)", "".join(loaded.text)), page
    for style in (tmp_path / "_static").rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert not re.search(r"@import|url\([\"']?(https?:)?//", text), style
    index = (tmp_path / "searchindex.js").read_text(encoding="utf-8")
    assert "RegionPredictor" in index
    assert "docs/tour" in index
