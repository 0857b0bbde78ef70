"""Describe this environment for a report of a problem, or a model and the memory that it takes.

dynrefer info
dynrefer info --model flant5xl
dynrefer info --model flant5xl --batch 16 --beams 5 --json

Without --model: versions, devices, LAVIS, Java, weights and settings, to be pasted whole. The home
folder is shown as "~", tokens and passwords are not shown.

The memory is that of a GPU. It is computed with tensors that take none, so neither a GPU nor the
weights are needed; for the full model that takes a minute. Not included: CUDA's own (about half a
GiB), and fragments. int8: the released formats, with the language model stored in 8 bit.
"""

from __future__ import annotations

import argparse
import json

from lavis_dynrefer.errors import InputError

FORMATS = ("float32", "released", "bfloat16", "int8")
_ABOUT_A_MODEL = ("checkpoint", "batch", "beams", "views", "tokens", "dtype")
_BATCH = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer info`."""
    parser.add_argument("--model", help="a type of model such as flant5xl, or a yaml")
    parser.add_argument("--checkpoint", help="as in predict; only listed")
    parser.add_argument("--batch", type=int, help=f"regions at once; default {_BATCH}")
    parser.add_argument("--beams", type=int, help="of the beam search; default that of the model")
    parser.add_argument("--views", type=int, help="of a region; default that of the model")
    parser.add_argument("--tokens", type=int, help="of a caption; default that of the model")
    parser.add_argument("--dtype", choices=FORMATS, help="only these number formats; default all")
    parser.add_argument("--json", action="store_true", help="print json; sizes in bytes")


def run(arguments: argparse.Namespace) -> int:
    """Print the environment, or the tables of a model; returns the exit code."""
    given = [name for name in _ABOUT_A_MODEL if getattr(arguments, name) is not None]
    if arguments.model is None and given:
        raise InputError(f"--{given[0]} is about a model; name one with --model, such as tiny")
    for option in ("batch", "beams", "views", "tokens"):
        value = getattr(arguments, option)
        if value is not None and value < 1:
            raise InputError(f"--{option}: expected at least 1, got {value}")
    if arguments.model is not None:  # imported here: the environment is told whatever is broken
        from lavis_dynrefer.lab import model_report

        arguments.batch = arguments.batch or _BATCH
        model_report.print_tables(arguments)
        return 0
    from lavis_dynrefer.lab.environment.environment_report import as_text, gather

    report = gather()
    print(json.dumps(report, indent=2) if arguments.json else as_text(report))
    return 0
