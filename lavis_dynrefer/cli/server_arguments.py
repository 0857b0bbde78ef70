"""What the commands that listen on a port have in common."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

HOST = "127.0.0.1"


def add_server_arguments(
    parser: argparse.ArgumentParser, *, port: int, numbers: Mapping[str, tuple[float, str]]
) -> None:
    """Address, model, and settings that are numbers.

    Args:
        parser: gets the arguments.
        port: default.
        numbers: setting -> default, whose type is that of the setting, and meaning.
    """
    parser.add_argument(
        "--host", default=HOST, help=f"address to listen on; default {HOST}, this machine only"
    )
    parser.add_argument(
        "--port", type=int, default=port, help=f"default {port}; 0 takes a free one"
    )
    parser.add_argument("--model", default="tiny", help="tiny, flant5xl, ...; default tiny")
    parser.add_argument("--checkpoint", help="weights in place of the model's own")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument("--dtype", default="auto", help="auto, float32 or bfloat16")
    for name, (default, meaning) in numbers.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(default),
            default=default,
            metavar="NUMBER",
            help=f"{meaning}; default {default:,}",
        )
