"""Wheel, sdist and both editable installs carry everything, connect to LAVIS, and leave nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from lavis_dynrefer.synthetic import make_scene, render

ROOT = Path(__file__).parents[1]
NOT_SOURCE = shutil.ignore_patterns(
    *(".git", ".hypothesis", ".*_cache", ".venv", "*.egg-info", "__pycache__", "build", "dist"),
    "output",
)
BUILD_TIME = {**os.environ, "SOURCE_DATE_EPOCH": "1767225600"}  # the same bytes each time

INSTALLED_BY_PIP = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
UNPACKING = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}

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
    "run_yaml": os.path.isfile(lavis_dynrefer.paths.project_path("dynrefer/synthetic.yaml")),
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
    for path in filter(Path.is_file, folder.rglob("*")):  # whatever the umask of the checkout was
        path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    return folder


@pytest.fixture(scope="session")
def built(source, tmp_path_factory):
    """A folder with the sdist, and the wheel built from it, so that both are complete."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir"]
    run([*build, folder, source], env=BUILD_TIME)
    return folder


@pytest.fixture(scope="session")
def wheel(built):
    return next(built.glob("*.whl"))


@pytest.fixture(scope="session")
def sdist(built):
    return next(built.glob("*.tar.gz"))


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

    def files(self):
        """Path -> content of all that belongs to this project, but for how it was installed."""
        return {
            str(path.relative_to(self.site)): path.read_bytes()
            for item in self.site.glob("lavis_dynrefer*")
            for path in [item, *item.rglob("*")]
            if path.is_file() and path.suffix != ".pyc" and path.name not in INSTALLED_BY_PIP
        }

    def dynrefer(self, *words):
        return run([self.python.parent / "dynrefer", *words], env=self.variables())

    def variables(self):
        return {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}

    def __call__(self, code, **variables):
        return run(
            [self.python, "-W", "ignore", "-W", "default::RuntimeWarning", "-c", code],
            cwd=self.site.parent,
            env={**self.variables(), **variables},
        )


OPTIONS = ["--no-deps", "--no-build-isolation", "--ignore-installed", "--quiet"]


@pytest.fixture(
    scope="module",
    params=["wheel", "editable", pytest.param("strict_editable", marks=pytest.mark.slow)],
)
def installed(request, source, wheel, tmp_path_factory):
    environment = Environment(tmp_path_factory.mktemp("venv"))
    what = wheel if request.param == "wheel" else source
    environment.pip("install", *OPTIONS, *INSTALLS[request.param], what)
    environment.home = environment.site if request.param == "wheel" else source
    yield environment
    environment.pip("uninstall", "--yes", "--quiet", "lavis_dynrefer")
    assert environment.content() == environment.before


@pytest.fixture(scope="session")
def tracked():
    """The files of the repository, as far as they are here."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and the repository")
    names = run([git, "-C", ROOT, "-c", "core.quotePath=off", "ls-files"]).stdout.splitlines()
    return {name for name in names if (ROOT / name).is_file()}


@pytest.fixture(scope="session")
def sdist_names(sdist):
    with tarfile.open(sdist) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def test_sdist_holds_the_whole_repository(tracked, sdist_names):
    assert tracked - sdist_names == set()


def test_sdist_holds_nothing_that_was_made_here(sdist_names):
    generated = {"", "PKG-INFO", "setup.cfg"}

    tops = {name.split("/")[0] for name in sdist_names}
    assert tops - {*os.listdir(ROOT), *generated} == set()
    assert [
        name for name in sdist_names if re.search(r"\.pyc$|__pycache__|/\.git/|_cache/", name)
    ] == []


def test_wheel_has_the_same_bytes_from_sdist_and_checkout(source, wheel, tmp_path):
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir"]
    run([*build, tmp_path, source], env=BUILD_TIME)

    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()


def test_index_would_accept_the_files(built):
    pytest.importorskip("twine")
    run([sys.executable, "-m", "twine", "check", "--strict", *built.iterdir()])


def test_wheel_holds_every_file_of_the_package(source, wheel):
    parts = {"lavis_dynrefer": source / "lavis_dynrefer"}
    parts.update({f"lavis_dynrefer/{name}": source / name for name in ("configs", "projects")})
    expected = {
        f"{prefix}/{path.relative_to(folder).as_posix()}"
        for prefix, folder in parts.items()
        for path in folder.rglob("*")
        if path.is_file() and not UNSHIPPED.match("/".join(path.relative_to(source).parts))
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


def test_metadata_names_the_licence_in_the_form_of_today(metadata):
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert metadata["License-File"] == "LICENSE"
    # The two forms exclude each other.
    assert not [line for line in metadata.get_all("Classifier") if line.startswith("License")]


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


@pytest.fixture(scope="module")
def from_wheel(wheel, tmp_path_factory):
    environment = Environment(tmp_path_factory.mktemp("venv"))
    environment.pip("install", *OPTIONS, wheel)
    return environment


@pytest.fixture(scope="module")
def repository(source, tmp_path_factory):
    """The source in a repository of git, as an address that pip knows."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    folder = tmp_path_factory.mktemp("git") / "lavis_dynrefer"
    shutil.copytree(source, folder, ignore=NOT_SOURCE)
    git = ["git", "-C", folder, "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "all of it"]):
        run([*git, *words])
    return f"git+{folder.as_uri()}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sdist", "repository", "unpacked sdist"])
def test_every_source_installs_as_the_wheel_does(kind, request, from_wheel, sdist, tmp_path):
    what = sdist if kind == "sdist" else None
    if kind == "repository":
        what = request.getfixturevalue("repository")
    if kind == "unpacked sdist":
        shutil.unpack_archive(sdist, tmp_path / "sdist", **UNPACKING)
        (what,) = (tmp_path / "sdist").iterdir()
    environment = Environment(tmp_path / "venv")
    environment.pip("install", *OPTIONS, what)

    assert environment.files() == from_wheel.files()
    assert answers_of(environment, tmp_path / "1") == answers_of(from_wheel, tmp_path / "2")
    info = json.loads(environment.dynrefer("info", "--json").stdout)
    assert info["lavis"]["hook_read_at_start_up"]
    assert info["lavis_import"]["knows_dynrefer"]
    assert ("commit" in info["package"]) == (kind == "repository")


def answers_of(environment, output):
    """What `dynrefer predict` writes about a drawn scene."""
    output.mkdir()
    render(make_scene(0, 2_000_001)).save(output / "scene.png")
    scene, answers = output / "scene.png", output / "answers"
    environment.dynrefer("predict", scene, "--box", "120,80,260,210", "--output", answers)
    return json.loads((answers / "results.jsonl").read_text(encoding="utf-8"))["regions"]
