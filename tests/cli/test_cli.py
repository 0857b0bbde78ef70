"""The `dynrefer` command: lazy imports, user errors and bugs."""

from __future__ import annotations

import errno
import importlib.util
import os
import subprocess
import sys
from types import ModuleType

import pytest

from lavis_dynrefer.cli import COMMANDS, main
from lavis_dynrefer.cli.stopping import EXIT_STOPPED
from lavis_dynrefer.errors import EXIT_BAD_INPUT, InputError, MissingPackageError

HEAVY = ("lavis", "numpy", "torch", "transformers")


@pytest.fixture
def failing(monkeypatch):
    """Makes a command `fail` that raises an error."""

    def fail(error):
        def run(arguments):
            raise error

        module = ModuleType("failing_command", "Fails.")
        module.add_arguments = lambda parser: parser.add_argument("--number", type=int)
        module.run = run
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(COMMANDS, "fail", (module.__name__, "raises an error"))

    return fail


def test_help_lists_the_commands_and_imports_none():
    code = (
        "import sys; from lavis_dynrefer.cli import main\n"
        "try: main(['--help'])\n"
        f"finally: assert not sys.modules.keys() & {set(HEAVY)}"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8"
    )

    assert (result.returncode, result.stderr) == (0, "")
    for name, (_, summary) in COMMANDS.items():
        assert name in result.stdout
        assert summary.split()[0] in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_explains_it(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])

    text = capsys.readouterr().out
    assert text.startswith(f"usage: dynrefer {command} ")
    assert sys.modules[COMMANDS[command][0]].__doc__.splitlines()[0] in text


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("--box: expected four numbers"), "error: --box: expected four numbers"),
        (MissingPackageError("pip install it"), "error: pip install it"),
        (
            PermissionError(errno.EACCES, "Permission denied", "out.json"),
            "error: [Errno 13] Permission denied: 'out.json'",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "error: [Errno 28] No space left"),
    ],
)
def test_error_that_a_user_can_cure_is_one_line(failing, capsys, error, line):
    failing(error)

    assert main(["fail"]) == EXIT_BAD_INPUT
    assert capsys.readouterr().err.startswith(line)


@pytest.mark.parametrize("error", [ValueError("bug"), OSError("bug"), KeyError("bug")])
def test_bug_keeps_its_traceback(failing, error):
    failing(error)

    with pytest.raises(type(error), match="bug"):
        main(["fail"])


def test_ctrl_c_ends_any_command_without_a_traceback(failing, capsys):
    failing(KeyboardInterrupt())

    assert main(["fail"]) == EXIT_STOPPED
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.parametrize(
    ("arguments", "unbuffered"), [(["--help"], ""), (["validate", "no.yaml"], "1")]
)
def test_closed_pipe_ends_without_a_traceback(arguments, unbuffered):
    process = subprocess.Popen(
        [sys.executable, "-m", "lavis_dynrefer.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    process.stdout.close()  # before the command has written anything

    assert (process.communicate()[1], process.returncode) == (b"", 1)


@pytest.mark.parametrize("words", [["--debug", "fail"], ["fail", "--number", "1", "--debug"]])
def test_debug_shows_the_traceback_of_any_error(failing, words):
    failing(InputError("--box: expected four numbers"))

    with pytest.raises(InputError):
        main(words)


def test_command_without_lavis_says_how_to_install_it(failing, capsys):
    failing(ModuleNotFoundError("No module named 'lavis'", name="lavis"))

    assert main(["fail"]) == EXIT_BAD_INPUT
    assert "error: dynrefer fail needs LAVIS, which is not installed" in capsys.readouterr().err


def test_quickstart_without_lavis_ends_before_it_draws(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    assert main(["quickstart", "--output", str(tmp_path / "out")]) == EXIT_BAD_INPUT
    assert "dynrefer quickstart needs LAVIS, which is not installed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["predict", "a.jpg", "--whole-image", "--atribute=wet"],
            "--atribute=wet; did you mean --attributes?",
        ),
        (["serve", "--prot=80"], "unrecognized arguments: --prot=80; did you mean --port?"),
        (["export", "a", "b", "c", "--zzz"], "unrecognized arguments: c --zzz\n"),
        (["inspect", "vg", "--samples=-1"], "argument --samples: expected at least 0, got -1"),
        (["inspect", "vg", "--seed=x"], "argument --seed: invalid integer value: 'x'"),
        (["prepare", "vg", "--processes=0"], "argument --processes: expected at least 1, got 0"),
    ],
)
def test_invalid_option_is_reported_with_the_usage_of_its_command(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)

    error = capsys.readouterr().err
    assert error.startswith(f"usage: dynrefer {arguments[0]} ")
    assert message in error


def test_unknown_command_is_reported(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["pedict", "a.jpg"])

    assert "invalid choice: 'pedict'" in capsys.readouterr().err
