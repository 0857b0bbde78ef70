"""The `dynrefer` command."""

from __future__ import annotations

import argparse
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
    arguments = parser.parse_args(argv)
    try:
        return COMMANDS[arguments.command].run(arguments)
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_BAD_INPUT
