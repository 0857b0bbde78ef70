"""`dynrefer demo` as a command: wrong calls, and its end."""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lavis_dynrefer.cli import demo, main

DOCS = Path(__file__).parents[2] / "docs" / "demo.md"
START = "import sys; from lavis_dynrefer.cli import main; sys.exit(main())"


def test_docs_list_every_option_with_its_default():
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    defaults = {
        action.option_strings[-1]: "" if action.default is None else str(action.default)
        for action in parser._actions[1:]
    }

    rows = re.findall(
        r"^\| `(--[a-z-]+)` \| (.*?) ?\|", DOCS.read_text(encoding="utf-8"), re.MULTILINE
    )

    assert dict(rows) == defaults


def test_image_in_the_docs_is_small():
    assert (DOCS.parent / "images" / "demo.jpg").stat().st_size <= 120 * 1024


def test_invalid_limit_is_refused(capsys):
    pytest.importorskip("gradio_image_annotation", reason="needs the extra `demo`")

    assert main(["demo", "--max-boxes", "0"]) == 2
    assert "max_boxes: expected at least 1, got 0" in capsys.readouterr().err


def test_missing_extra_is_named_with_its_install_command(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)

    assert main(["demo"]) == 2

    error = capsys.readouterr().err
    assert "dynrefer demo needs gradio" in error
    assert "; pip install 'lavis_dynrefer[demo]'" in error
    assert len(error.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows cannot ask another program to end")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_signal_ends_it_quietly_and_leaves_no_files(tmp_path, name):
    pytest.importorskip("gradio_image_annotation", reason="needs the extra `demo`")
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", START, "demo", "--port", "0", "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        encoding="utf-8",
    )
    try:
        line = process.stdout.readline()
        assert re.fullmatch(r"open http://127\.0\.0\.1:\d+ \(Ctrl-C ends it\)\n", line)
        assert list(tmp_path.glob("dynrefer-demo-*"))

        process.send_signal(getattr(signal, name))

        _, log = process.communicate(timeout=120)
        assert (process.returncode, "Traceback" in log) == (0, False)
        assert not list(tmp_path.glob("dynrefer-demo-*"))
    finally:
        process.kill()
        process.communicate()
