"""Wheel, sdist and both editable installs carry everything, connect to LAVIS, and leave nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOT_SOURCE = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "dist", "output")

UNSHIPPED = re.compile(r".*(/__pycache__/|/\.|\.egg-info/|/lavis_dynrefer\.pth$)")

INSTALLS = {
    "wheel": [],
    "editable": ["--editable"],
    "strict_editable": ["--config-settings", "editable_mode=strict", "--editable"],
}

# What an interpreter far from the checkout sees; LAVIS alone is imported by name.
PROBE = """
import importlib.util, json, os, sys
armed = [type(finder).__name__ for finder in sys.meta_path].count("LavisFinder")
from lavis.models import load_model_and_preprocess, model_zoo
from lavis.common.registry import registry
import lavis_dynrefer
print(json.dumps({
    "armed": armed,
    "file": os.path.realpath(lavis_dynrefer.__file__),
    "types": dict(model_zoo)["dynrefer"],
    "model_yaml": os.path.isfile(registry.get_model_class("dynrefer").default_config_path("tiny")),
    "run_yaml": os.path.isfile(lavis_dynrefer.paths.project_path("dynrefer/quickstart.yaml")),
    "defaults": load_model_and_preprocess.__defaults__,
    "train": importlib.util.find_spec("lavis.train") is not None,
    "evaluate": importlib.util.find_spec("lavis.evaluate") is not None,
}))
"""


def run(command, **settings):
    streams = {"capture_output": True, "text": True, "encoding": "utf-8"}
    result = subprocess.run(command, check=False, **streams, **settings)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A copy of the checkout, because building writes into it."""
    folder = tmp_path_factory.mktemp("source") / "lavis_dynrefer"
    shutil.copytree(ROOT, folder, ignore=NOT_SOURCE)
    return folder


@pytest.fixture(scope="session")
def wheel(source, tmp_path_factory):
    """The wheel built from the sdist, so that both are complete."""
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source])
    return next(folder.glob("*.whl"))


class Environment:
    """A virtual environment that borrows the dependencies of this one."""

    def __init__(self, folder):
        venv.create(folder, symlinks=True)
        self.python = folder / "bin" / "python"
        self.site = next(folder.glob("lib/python*/site-packages"))
        borrowed = folder / "borrowed"
        borrowed.mkdir()
        for entry in (
            item
            for path in sys.path
            if path.endswith("site-packages")
            for item in Path(path).iterdir()
        ):
            link = borrowed / entry.name
            # All but this project itself, which the environment may hold in any form.
            if not entry.name.startswith(("lavis_dynrefer", "__editable__")) and not link.exists():
                link.symlink_to(entry)
        # A plain path: the .pth files in that folder are not read.
        (self.site / "borrowed.pth").write_text(str(borrowed), encoding="utf-8")
        self.before = self.content()

    def content(self):
        return {path.name for path in self.site.iterdir()} - {"__pycache__"}

    def pip(self, *arguments):
        pip = [sys.executable, "-m", "pip", "--python", self.python, "--disable-pip-version-check"]
        return run([*pip, *arguments])

    def __call__(self, code, **variables):
        return run(
            [self.python, "-W", "ignore", "-W", "default::RuntimeWarning", "-c", code],
            cwd=self.site.parent,
            env={**os.environ, "PYTHONPATH": "", **variables},
        )


@pytest.fixture(scope="module", params=INSTALLS)
def installed(request, source, wheel, tmp_path_factory):
    environment = Environment(tmp_path_factory.mktemp("venv"))
    what = wheel if request.param == "wheel" else source
    options = ["--no-deps", "--no-build-isolation", "--ignore-installed", "--quiet"]
    environment.pip("install", *options, *INSTALLS[request.param], what)
    environment.home = environment.site if request.param == "wheel" else source
    yield environment
    environment.pip("uninstall", "--yes", "--quiet", "lavis_dynrefer")
    assert environment.content() == environment.before


def test_wheel_holds_every_file_of_the_package(wheel):
    parts = {"lavis_dynrefer": ROOT / "lavis_dynrefer"}
    parts.update({f"lavis_dynrefer/{name}": ROOT / name for name in ("configs", "projects")})
    expected = {
        f"{prefix}/{path.relative_to(folder).as_posix()}"
        for prefix, folder in parts.items()
        for path in folder.rglob("*")
        if path.is_file() and not UNSHIPPED.match("/".join(path.relative_to(ROOT).parts))
    }

    assert expected - set(zipfile.ZipFile(wheel).namelist()) == set()


def test_wheel_puts_only_the_hook_beside_the_package(wheel):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}

    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "lavis_dynrefer",
        "lavis_dynrefer.pth",
        "lavis_dynrefer_autoload.py",
    }


def test_wheel_records_the_hook_so_that_pip_removes_it(wheel):
    archive = zipfile.ZipFile(wheel)
    record = next(name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))

    assert b"lavis_dynrefer.pth,sha256=" in archive.read(record)


@pytest.fixture(scope="session")
def metadata(wheel):
    archive = zipfile.ZipFile(wheel)
    name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    return message_from_bytes(archive.read(name))


def test_lavis_is_required_by_its_own_extra_alone(metadata):
    asked = [line for line in metadata.get_all("Requires-Dist") if "salesforce" in line]

    assert metadata["Requires-Python"] == ">=3.9"
    assert asked == ['salesforce-lavis==1.0.2; python_version < "3.12" and extra == "lavis-pins"']


def test_importing_lavis_alone_connects_the_installed_plugin(installed):
    result = installed(PROBE)

    seen = json.loads(result.stdout.splitlines()[-1])
    assert installed.home in Path(seen.pop("file")).parents
    assert seen == {
        "armed": 1,
        "types": ["default", "tiny", "flant5xl", "vicuna7b"],
        "model_yaml": True,
        "run_yaml": True,
        "defaults": [None, False, "cpu"],
        "train": True,
        "evaluate": True,
    }
    assert "RuntimeWarning" not in result.stderr


def test_switch_disarms_the_hook(installed):
    code = "import sys; print([type(finder).__name__ for finder in sys.meta_path])"

    assert "LavisFinder" not in installed(code, LAVIS_DYNREFER_AUTOLOAD="0").stdout


def test_start_up_imports_nothing_but_the_hook(installed):
    code = "import sys; print([name for name in sys.modules if 'dynrefer' in name])"

    result = installed(code)

    assert "'lavis_dynrefer_autoload'" in result.stdout
    assert "'lavis_dynrefer'" not in result.stdout


def test_lavis_survives_a_broken_plugin_with_one_warning(installed, tmp_path):
    for name, code in (("lavis", "alive = True"), ("lavis_dynrefer", "raise RuntimeError('bug')")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code, encoding="utf-8")

    result = installed("import lavis; print(lavis.alive)", PYTHONPATH=str(tmp_path))

    assert result.stdout == "True\n"
    assert result.stderr.count("RuntimeWarning") == 1
    assert "RuntimeError: bug" in result.stderr
