"""The examples and tables of docs/serve.md."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

from lavis_dynrefer.serve import ServeSettings
from lavis_dynrefer.serve.request_errors import STATUS

PAGE = (Path(__file__).parents[2] / "docs/serve.md").read_text(encoding="utf-8")
# A comment before each code block names it.
BLOCKS = dict(re.findall(r"<!-- (\w+) -->\n```\w+\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture
def here(client, scene, tmp_path, monkeypatch):
    """The page's blocks, for the running server and in a folder with the photo."""
    pytest.importorskip("fastapi", reason="needs the extra `serve`")
    scene[0].save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    return {kind: block.replace("8008", str(client.port)) for kind, block in BLOCKS.items()}


def printed(program):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(program, {})
    return out.getvalue().strip()


def test_curl_example_gets_the_answer_shown(here):
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    result = subprocess.run(
        ["sh", "-c", here["shell"]], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    answer, shown = json.loads(result.stdout), json.loads(BLOCKS["answer"])
    assert answer.keys() == shown.keys()
    assert answer["regions"][0].keys() == shown["regions"][0].keys()
    assert answer["timings"].keys() == shown["timings"].keys()
    assert answer["regions"][0]["scales"] == shown["regions"][0]["scales"]


def test_python_example_gets_the_caption(here, predictor, scene):
    (expected,) = predictor.predict(scene[0], [[98, 50, 237, 180]], controls=["red"], views="task")
    assert printed(here["python"]) == expected.caption


def test_openai_example_gets_the_caption(here, predictor, scene):
    pytest.importorskip("openai", reason="needs OpenAI's client")
    (expected,) = predictor.predict(scene[0], [[98, 50, 237, 180]], controls=["red"])
    assert printed(here["openai"]) == expected.caption


@pytest.mark.parametrize(("name", "default"), asdict(ServeSettings()).items())
def test_every_limit_is_listed_with_its_default(name, default):
    option = name.replace("_", "-")
    assert f"| `--{option}` | {default} |" in PAGE


@pytest.mark.parametrize("kind", sorted(set(STATUS) - {"client_gone"}))
def test_every_error_is_listed(kind):
    assert f"`{kind}`" in PAGE.split("## Errors")[1].split("## Limits")[0]
