"""The `dynrefer` command."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Sequence

from lavis_dynrefer.cli import (
    benchmark,
    demo,
    export,
    grade,
    inspect,
    predict,
    prepare,
    quickstart,
    serve,
    validate,
)

EXIT_BAD_INPUT = 2  # as argparse
COMMANDS = {
    "quickstart": quickstart,
    "predict": predict,
    "prepare": prepare,
    "inspect": inspect,
    "validate": validate,
    "export": export,
    "grade": grade,
    "benchmark": benchmark,
    "serve": serve,
    "demo": demo,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands; returns the exit code."""
    parser = argparse.ArgumentParser(prog="dynrefer", description=__doc__)
    verbs = parser.add_subparsers(dest="command", required=True)
    for name, module in COMMANDS.items():
        summary = (module.__doc__ or "").splitlines()[0]
        module.add_arguments(verbs.add_parser(name, help=summary, description=summary))
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:  # said with the usage of the command, not of `dynrefer`
        command = verbs.choices[arguments.command]
        command.error(_unrecognised(unknown, command.format_usage()))
    try:
        return COMMANDS[arguments.command].run(arguments)
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_BAD_INPUT


def _unrecognised(unknown: Sequence[str], usage: str) -> str:
    message = "unrecognized arguments: " + " ".join(unknown)
    options = re.findall(r"--[\w-]+", usage)
    for argument in unknown:
        close = difflib.get_close_matches(argument.split("=")[0], options, n=1)
        if close:
            message += f"; did you mean {close[0]}?"
            break
    return message
