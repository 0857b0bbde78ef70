"""Write the weights of a checkpoint as safetensors: a part, in half precision, or official names.

dynrefer export output/.../checkpoint_last.pth weights.safetensors --only backbone. --half
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import save_file

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.weights.checkpoint import (
    from_official,
    is_official,
    read_state_dict,
    to_official,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer export`."""
    parser.add_argument("checkpoint", type=Path, help="a run's checkpoint, or any of our files")
    parser.add_argument("output", type=Path, help="safetensors file to write")
    parser.add_argument("--only", nargs="+", default=[""], help="prefixes of names to keep")
    parser.add_argument("--half", action="store_true", help="store float32 tensors as float16")
    parser.add_argument("--official", action="store_true", help="use the released code's names")


def run(arguments: argparse.Namespace) -> int:
    """Export; returns the exit code."""
    output: Path = arguments.output
    if output.suffix != ".safetensors" or output.is_dir() or not output.parent.is_dir():
        raise InputError(f"{output}: expected the name of a .safetensors file in a folder there is")
    state = read_state_dict(arguments.checkpoint)
    if not state:
        raise InputError(f"{arguments.checkpoint} holds no tensor")
    if is_official(state):
        state = from_official(state)
    kept = {name: value for name, value in state.items() if name.startswith(tuple(arguments.only))}
    if not kept:
        raise InputError(
            f"--only {arguments.only}: none of {len(state)} names begins so; "
            f"the first is {next(iter(state), None)!r}"
        )
    if arguments.half:
        kept = {
            name: value.half() if value.dtype == torch.float32 else value
            for name, value in kept.items()
        }
    if arguments.official:
        kept = to_official(kept)
    # Aliases of one tensor are written in full: safetensors has no notion of sharing.
    save_file({name: value.contiguous().clone() for name, value in kept.items()}, arguments.output)
    size = arguments.output.stat().st_size / 2**20
    Console().print(f"{len(kept)} tensors, {size:.1f} MiB: {arguments.output}")
    return 0
