"""The code blocks of the documentation: found, run, or checked as far as possible.

A comment before each block of shell or Python says what happens to it:

    <!-- run -->                 run, in the order of the page, in a folder of that page
    <!-- file: NAME -->          written into that folder
    <!-- not run: REASON -->     our commands are still checked: arguments, yaml, options
"""

from __future__ import annotations

import argparse
import importlib
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from torch.distributed.run import get_args_parser

from lavis_dynrefer.cli import COMMANDS, main
from lavis_dynrefer.training.checks.file_checks import check_file
from lavis_dynrefer.training.launch import evaluate_main, train_main

ROOT = Path(__file__).parents[1]
LAUNCHERS = {
    f"{package}.{word}": launcher
    for package in ("lavis", "lavis_dynrefer")
    for word, launcher in (("train", train_main), ("evaluate", evaluate_main))
}


class Block(NamedTuple):
    """A fenced block: its line in the page, what happens to it, file name or reason, content."""

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
    """The command lines of a block of shell, without comments, continued lines joined."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run_command(words):
    """Exit code of a command; ours run in this process, which has already imported LAVIS."""
    if words[0] == "dynrefer":
        return main(words[1:])
    if words[:2] == ["python", "-m"] and words[2] in LAUNCHERS:
        return LAUNCHERS[words[2]](words[3:])
    if words[0] != "python":
        return subprocess.run(words).returncode
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words[1:])
        try:
            runpy.run_path(words[1], run_name="__main__")
        except SystemExit as stopped:
            return stopped.code
    return 0


def run_block(block, names):
    if block.use == "file":
        Path(block.detail).parent.mkdir(parents=True, exist_ok=True)
        Path(block.detail).write_text(block.text, encoding="utf-8")
    elif block.language == "python":
        exec(compile(block.text, f"the block in line {block.line}", "exec"), names)
    else:
        for words in commands_of(block):
            assert run_command(words) == 0, shlex.join(words)


def check(words):
    """Check a command as far as possible without running it."""
    while "=" in words[0]:  # environment variables
        words = words[1:]
    if words[0] == "torchrun":
        arguments = get_args_parser().parse_args(words[1:])
        if arguments.module:
            check(["python", "-m", arguments.training_script, *arguments.training_script_args])
    elif words[1] == "-m" and words[2] in LAUNCHERS:
        check_launch(words[3:])
    elif words[0].endswith("dynrefer"):
        parser = argparse.ArgumentParser(prog=" ".join(words[:2]))
        importlib.import_module(COMMANDS[words[1]][0]).add_arguments(parser)
        parser.parse_args(words[2:])


def check_launch(words):
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-path", required=True)
    parser.add_argument("--options", nargs="+", default=[])
    arguments = parser.parse_args(words)
    findings = check_file(arguments.cfg_path, arguments.options)
    assert [finding.text for finding in findings if finding.fatal] == []
