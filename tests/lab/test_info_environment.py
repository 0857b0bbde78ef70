from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from fresh_interpreter import run_python

from lavis_dynrefer.cli import main
from lavis_dynrefer.lab.benchmarks import resource_usage
from lavis_dynrefer.lab.environment import environment_report, installed, probes, surroundings


@pytest.fixture(scope="module")
def report():
    return environment_report.gather()


@pytest.fixture
def fake_torch(tmp_path, monkeypatch):
    """Call it with the code that this environment's torch consists of, for new processes."""

    def write(code):
        (tmp_path / "torch.py").write_text(code, encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))

    return write


def test_the_environment_of_this_test_is_described(report):
    torch, numpy = sys.modules["torch"], sys.modules["numpy"]

    assert report["torch"]["version"] == torch.__version__
    assert report["libraries"]["numpy"] == numpy.__version__
    assert report["lavis_import"]["knows_dynrefer"] is True
    assert set(report["weights"]) > {"eva_vit", "blip2", "flan_t5", "dynrefer"}
    assert "version" in report["java"]
    assert [name for name, found in report.items() if "error" in found] == []


def test_the_text_has_a_line_for_each_thing(report):
    lines = environment_report.as_text(report).splitlines()

    names = [line[:14].strip() for line in lines]
    assert names[:6] == ["lavis_dynrefer", "Python", "system", "processor", "torch", "GPUs"]
    assert {"LAVIS", "Java", "cache", "weights", "variables"} <= set(names)
    assert f"Python         {sys.version.split()[0]} (" in "\n".join(lines)


def test_the_report_is_json_on_request(report, monkeypatch, capsys):
    monkeypatch.setattr(environment_report, "gather", lambda: report)

    assert main(["info", "--json"]) == 0

    assert json.loads(capsys.readouterr().out) == report


def test_whatever_is_not_known_is_a_line_with_the_reason(report):
    sections = {section for section, _ in environment_report._LINES.values()}
    broken = {**report, **{section: {"error": f"{section} broke"} for section in sections}}

    lines = environment_report.as_text(broken).splitlines()

    assert len(lines) == len(environment_report._LINES)
    assert all("not known: " in line and line.endswith(" broke") for line in lines)


def test_a_torch_that_ends_the_process_costs_its_own_lines(fake_torch):
    fake_torch(
        "import os, sys\nsys.stderr.write('illegal instruction')\nsys.stderr.flush()\nos._exit(9)\n"
    )

    found = probes.run_probes(["torch", "java"])

    assert found["torch"] == {"error": "the process ended with exit code 9: illegal instruction"}
    assert "version" in found["java"]


def test_a_torch_that_does_not_import_is_told(fake_torch):
    fake_torch("raise ImportError('libcudart.so.13: cannot open shared object file')\n")

    assert probes.run_probes(["torch"])["torch"] == {
        "error": "ImportError: libcudart.so.13: cannot open shared object file"
    }


def test_a_torch_that_never_answers_is_waited_for_in_vain(fake_torch):
    fake_torch("import time\ntime.sleep(600)\n")

    found = probes.run_probes(["torch"], seconds=1)

    assert found["torch"] == {"error": "no answer within 1 s"}


def test_a_missing_lavis_is_a_line(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "lavis", None)
    monkeypatch.setattr(installed, "LAVIS", "no-such-package")

    text = environment_report.as_text({**report, "lavis": installed.lavis()})

    assert "LAVIS          not installed" in text.splitlines()


def test_a_refused_transformers_is_a_line_and_other_commands_name_it(tmp_path, monkeypatch):
    info = tmp_path / "transformers-4.20.0.dist-info"
    info.mkdir()
    metadata = "Metadata-Version: 2.1\nName: transformers\nVersion: 4.20.0\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    code = "import sys\nfrom lavis_dynrefer.cli import main\nsys.exit(main(sys.argv[1:]))\n"
    refused = "lavis_dynrefer needs transformers >=4.26,<6, found 4.20.0"

    told = run_python(
        "from lavis_dynrefer.lab.environment import installed\n"
        "print(installed.libraries()['refused'])",
        tmp_path,
    )
    other = run_python(f"import sys\nsys.argv[1:] = ['weights', 'list']\n{code}", tmp_path)

    assert told.returncode == 0
    assert told.stdout.startswith(refused)
    assert other.returncode == 2
    assert other.stderr.startswith(f"error: {refused}")


def test_secrets_are_only_said_to_be_set():
    environment = {
        "HF_TOKEN": "hf_1",
        "DYNREFER_API_KEY": "k",
        "SLURM_JOB_USER": "me",
        "https_proxy": "http://me:word@proxy:3128",
        "DYNREFER_CACHE": "/data",
        "CUDA_VISIBLE_DEVICES": "0,1",
        "EDITOR": "vi",
        "AWS_SECRET_ACCESS_KEY": "s",
        "HF_ENDPOINT": "https://me:p@ss/word@mirror.org/x?token=abc",
        "HTTP_PROXY": "me:word@proxy:3128",
        "HF_HUB_FOO": "hf_abcdefghij",
    }

    assert surroundings.variables(environment) == {
        "CUDA_VISIBLE_DEVICES": "0,1",
        "DYNREFER_API_KEY": "(set)",
        "DYNREFER_CACHE": "/data",
        "HF_ENDPOINT": "https://(login)@mirror.org/x?(query)",
        "HF_HUB_FOO": "(secret)",
        "HF_TOKEN": "(set)",
        "HTTP_PROXY": "(login)@proxy:3128",
        "SLURM_JOB_USER": "(set)",
        "https_proxy": "http://(login)@proxy:3128",
    }


@pytest.mark.parametrize(
    ("home", "shown"),
    [
        ("/home/me", ["~/a", "x=~:~", "/home/me2/a", "/data"]),
        ("/", ["/home/me/a", "x=/home/me:/home/me", "/home/me2/a", "/data"]),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="paths of other systems")
def test_the_home_folder_is_not_shown(monkeypatch, home, shown):
    monkeypatch.setattr(surroundings, "expand_home", lambda path: Path(home))
    texts = ["/home/me/a", "x=/home/me:/home/me", "/home/me2/a", "/data"]

    assert surroundings.without_private({"a": texts, "b": 1}) == {"a": shown, "b": 1}


def test_unmet_requirements_name_what_is_there():
    wanted = [
        "numpy>=1",
        "numpy<1",
        "no-such-package>=2",
        'no-such-package; python_version < "3"',
        'no-such-package; extra == "serve"',
    ]
    numpy = sys.modules["numpy"].__version__

    assert list(installed.unmet(wanted)) == [f"numpy {numpy} (<1)", "no-such-package is missing"]
    assert list(installed.unmet(wanted, extra="serve")) == ["no-such-package is missing"]
    assert list(installed.unmet(wanted, extra="demo")) == []


def test_systems_without_proc_and_sysconf(tmp_path, monkeypatch):
    monkeypatch.setattr(resource_usage, "_CPUS", tmp_path / "none")
    monkeypatch.delattr(os, "sysconf_names", raising=False)

    found = surroundings.system()

    assert (found["flags"], found["memory"]) == ([], None)


def test_the_limit_of_a_container_is_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(resource_usage, "_LIMIT", tmp_path / "memory.max")
    machine = resource_usage.total_memory()
    (tmp_path / "memory.max").write_text("1048576\n", encoding="ascii")

    assert resource_usage.total_memory() == (1 << 20 if machine is not None else None)
