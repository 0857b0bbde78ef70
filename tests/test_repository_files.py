"""The files about the repository itself agree with each other and with the package."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

import lavis_dynrefer

ROOT = Path(__file__).parents[1]


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


def workflow():
    return yaml.safe_load(text_of(".github/workflows/checks.yml"))


def test_every_action_is_pinned_to_a_commit():
    used = re.findall(r"uses: (.+)", text_of(".github/workflows/checks.yml"))

    assert used
    assert [name for name in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d\S*", name)] == []


def test_the_workflow_may_only_read():
    assert workflow()["permissions"] == {"contents": "read"}
    assert ["permissions" in job for job in workflow()["jobs"].values()].count(True) == 0


def test_the_workflow_runs_the_script_that_everybody_runs():
    steps = workflow()["jobs"]["linux"]["steps"]

    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]


def test_other_systems_are_installed_as_the_readme_says():
    steps = workflow()["jobs"]["other-systems"]["steps"]
    commands = " ".join(step.get("run", "") for step in steps)

    for command in ("pip install '.[test]'", "pip install --no-deps salesforce-lavis==1.0.2"):
        assert command in text_of("README.md")
        assert command in commands


def test_hooks_use_the_ruff_of_the_test_extra():
    hooks = yaml.safe_load(text_of(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    versions = {
        requirement
        for hook in hooks
        for requirement in hook.get("additional_dependencies", ())
        if requirement.startswith("ruff")
    }

    assert [f'"{version}"' in text_of("setup.py") for version in versions] == [True]


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load(text_of("CITATION.cff"))

    assert citation["version"] == lavis_dynrefer.__version__
    assert f'"{citation["license"]}"' in text_of("setup.py")
    assert len(citation["preferred-citation"]["authors"]) == 7


def test_a_report_of_a_bug_asks_for_the_environment():
    form = yaml.safe_load(text_of(".github/ISSUE_TEMPLATE/bug.yml"))
    (info,) = (field for field in form["body"] if field.get("id") == "info")

    assert "`dynrefer info`" in info["attributes"]["label"]
    assert info["validations"]["required"] is True
