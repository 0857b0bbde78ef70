"""DynRefer: describe regions of images. `dynrefer COMMAND --help` explains a command."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from lavis_dynrefer.cli.stopping import exit_code
from lavis_dynrefer.errors import EXIT_BAD_INPUT, did_you_mean, text_for_user
from lavis_dynrefer.host import compat
from lavis_dynrefer.paths import warn_of_surroundings

EXIT_PIPE_CLOSED = 1  # as of every Python program

# Command -> its module, which is imported when the command is chosen, and what it does.
# A module offers `add_arguments(parser)` and `run(arguments) -> exit code`.
COMMANDS = {
    "quickstart": (
        "lavis_dynrefer.cli.quickstart.quickstart_command",
        "teach the embedded model new objects, and show what it says before and after",
    ),
    "predict": (
        "lavis_dynrefer.cli.predict.predict_command",
        "describe regions of images: captions, tags, attributes and categories",
    ),
    "predict-many": (
        "lavis_dynrefer.cli.predict_many",
        "the same for very many images, on a machine or a cluster, with Ray",
    ),
    "prepare": (
        "lavis_dynrefer.cli.prepare",
        "convert the raw files of a dataset into tables, or make a tag list of its captions",
    ),
    "inspect": (
        "lavis_dynrefer.cli.inspect.inspect_command",
        "show what a dataset holds: counts, sizes, captions, images with their regions",
    ),
    "validate": (
        "lavis_dynrefer.cli.validate",
        "check the yaml of a run, a model or a dataset without building anything",
    ),
    "export": (
        "lavis_dynrefer.cli.weight_files.export",
        "write the weights of a checkpoint as safetensors",
    ),
    "download": (
        "lavis_dynrefer.cli.weight_files.download",
        "fetch the public parts of the full model, once for all later calls",
    ),
    "weights": (
        "lavis_dynrefer.cli.weight_files.weights",
        "list the files of the full model, and tell where yours are",
    ),
    "serve": (
        "lavis_dynrefer.cli.serve",
        "answer over HTTP: regions of images in, json out",
    ),
    "demo": (
        "lavis_dynrefer.cli.demo",
        "a web page to try the model on your own images",
    ),
    "info": (
        "lavis_dynrefer.lab.info_command",
        "describe this environment for a report, or a model and the memory that it takes",
    ),
    "grade": (
        "lavis_dynrefer.lab.grade_command",
        "grade the answers of a run, or a model on synthetic scenes",
    ),
    "calibrate": (
        "lavis_dynrefer.cli.calibrate",
        "make the probabilities of a model right, on a validation split",
    ),
    "report": (
        "lavis_dynrefer.cli.report",
        "draw a run, or several side by side, into one html page",
    ),
    "benchmark": (
        "lavis_dynrefer.lab.benchmark_command",
        "measure speed, and the effect of view policies",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands; returns the exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not every console knows every character
            stream.reconfigure(errors="backslashreplace")
    command = next((word for word in words if not word.startswith("-")), "")
    try:
        try:
            warn_of_surroundings()
            with compat.needing_lavis(f"dynrefer {command}"):
                arguments = _parse(words, command)
                code: int = importlib.import_module(COMMANDS[command][0]).run(arguments)
                return code
        finally:
            sys.stdout.flush()  # so that a closed pipe is noticed here, not at exit
    except BrokenPipeError:  # the reader has ended, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED
    except KeyboardInterrupt as stop:
        sys.stderr.write("stopped\n")
        return exit_code(stop)
    except Exception as error:
        text = text_for_user(error)
        if text is None or "--debug" in words:
            raise
        sys.stderr.write(f"error: {text}\n")
        return EXIT_BAD_INPUT


def _parse(words: Sequence[str], chosen: str) -> argparse.Namespace:
    """The arguments; only the module of the chosen command is imported."""
    debug: dict[str, Any] = {"action": "store_true", "help": "show the traceback of an error"}
    parser = argparse.ArgumentParser(prog="dynrefer", description=__doc__)
    parser.add_argument("--debug", **debug)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, summary) in COMMANDS.items():
        command = commands.add_parser(
            name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_argument("--debug", default=argparse.SUPPRESS, **debug)
        if name == chosen:
            module = importlib.import_module(COMMANDS[name][0])
            command.description = module.__doc__
            module.add_arguments(command)
    arguments, unknown = parser.parse_known_args(words)
    if unknown:  # reported with the usage of the command, not of `dynrefer`
        command = commands.choices[chosen]
        command.error(_unrecognised(unknown, command.format_usage()))
    return arguments


def _unrecognised(unknown: Sequence[str], usage: str) -> str:
    options = re.findall(r"--[\w-]+", usage)
    hints = (did_you_mean(argument.split("=")[0], options) for argument in unknown)
    return "unrecognized arguments: " + " ".join(unknown) + next(filter(None, hints), "")
