"""LAVIS imports beside other versions of its libraries; what cannot work is refused."""

from __future__ import annotations

import sys
import warnings

import pytest
from fresh_interpreter import run_python

from lavis_dynrefer import models
from lavis_dynrefer.host import compat, versions
from lavis_dynrefer.host.autoload import lavis_dynrefer_autoload

HOOK = lavis_dynrefer_autoload.__file__


@pytest.fixture
def pretended_transformers(tmp_path):
    """A folder whose metadata claims a version of transformers, and that holds an empty LAVIS."""

    def pretend(version):
        info = tmp_path / f"transformers-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: transformers\nVersion: {version}\n", encoding="utf-8"
        )
        (tmp_path / "lavis").mkdir()
        (tmp_path / "lavis" / "__init__.py").write_text("alive = True\n", encoding="utf-8")
        return tmp_path

    return pretend


@pytest.mark.parametrize("version", ["6.0.0", "6.1.0.dev0", "4.25.1"])
def test_unsupported_transformers_is_refused(pretended_transformers, version):
    result = run_python("import lavis_dynrefer.models", pretended_transformers(version))

    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        f"lavis_dynrefer.errors.MissingPackageError: lavis_dynrefer needs transformers >=4.26,<6, "
        f"found {version}; pip install 'transformers>=4.26,<6'"
    )


def test_lavis_survives_unsupported_transformers_with_a_warning(pretended_transformers):
    code = (
        "from importlib.util import module_from_spec, spec_from_file_location as at\n"
        f"spec = at('hook', {HOOK!r}); hook = module_from_spec(spec)\n"
        "spec.loader.exec_module(hook); hook.install()\n"
        "import lavis; print(lavis.alive)"
    )

    result = run_python(code, pretended_transformers("6.0.0"))

    assert result.stdout == "True\n"
    assert result.stderr.count("RuntimeWarning: lavis_dynrefer is not available in LAVIS") == 1
    assert "needs transformers" in result.stderr


@pytest.mark.parametrize("version", ["4.26.1", "4.57.6", "5.0.0", "5.24.0"])
def test_supported_transformers_is_accepted(pretended_transformers, version, monkeypatch):
    monkeypatch.syspath_prepend(str(pretended_transformers(version)))

    assert models.version("transformers") == version
    models.check_transformers()


def test_old_python_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 8, 18, "final", 0))

    with pytest.raises(ImportError, match=r"needs Python >= 3\.9, found 3\.8\.18"):
        versions.check_python()


def test_warning_filters_of_libraries_stay_and_ours_go():
    with warnings.catch_warnings():
        before = list(warnings.filters)
        with compat.lavis_importable():
            warnings.filterwarnings("once", message="as a library does")
            theirs = warnings.filters[0]
            assert len(warnings.filters) > len(before) + 1
        assert list(warnings.filters) == [theirs, *before]


def test_error_of_a_broken_lavis_says_how_to_reinstall_it():
    message = "does not import: no timm; install both afresh .* --no-deps salesforce-lavis==1"
    with pytest.raises(ImportError, match=message), compat.lavis_importable():
        raise ImportError("no timm")


def test_error_of_a_missing_lavis_says_how_to_install_it():
    message = "^DynRefer needs LAVIS, which is not installed; pip install --no-deps salesforce"
    with pytest.raises(ImportError, match=message), compat.needing_lavis("DynRefer"):
        raise ModuleNotFoundError("No module named 'lavis'", name="lavis")
