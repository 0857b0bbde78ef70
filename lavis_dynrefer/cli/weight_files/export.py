"""Write the weights of a checkpoint as safetensors: all, a part, in half precision, renamed.

dynrefer export output/.../checkpoint_last.pth weights.safetensors --only backbone. --half
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.json_stream import replacing_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer export`."""
    parser.add_argument("checkpoint", type=Path, help="a run's checkpoint, or another weight file")
    parser.add_argument("output", type=Path, help="safetensors file to write")
    parser.add_argument("--only", nargs="+", default=[""], help="prefixes of names to keep")
    parser.add_argument("--half", action="store_true", help="store float32 tensors as float16")
    parser.add_argument("--official", action="store_true", help="use the released code's names")


def run(arguments: argparse.Namespace) -> int:
    """Export; returns the exit code."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from lavis_dynrefer.models.weights import checkpoint
    from lavis_dynrefer.models.weights.tensor_reading import read_state_dict

    output: Path = arguments.output
    if output.suffix != ".safetensors" or output.is_dir() or not output.parent.is_dir():
        raise InputError(
            f"{output}: expected the name of a .safetensors file in an existing folder"
        )
    state = read_state_dict(arguments.checkpoint)
    if checkpoint.is_official(state):
        state = checkpoint.from_official(state)
    kept = {name: value for name, value in state.items() if name.startswith(tuple(arguments.only))}
    if not kept:
        raise InputError(
            f"{arguments.checkpoint}: none of its {len(state)} names begins with {arguments.only}; "
            f"the first is {next(iter(state), None)!r}"
        )
    if arguments.half:
        kept = {
            name: value.half() if value.dtype == torch.float32 else value
            for name, value in kept.items()
        }
    if arguments.official:
        left_out = sum(name.startswith(checkpoint.CALIBRATION) for name in kept)
        if left_out:
            print(f"{left_out} tensors of the calibration have no official names and are left out")
        kept = checkpoint.to_official(kept)
    # Aliases of one tensor are written in full: safetensors does not store sharing.
    with replacing_path(output) as partial:  # it may be the checkpoint itself
        try:
            save_file({name: value.contiguous().clone() for name, value in kept.items()}, partial)
        except SafetensorError as error:
            raise InputError(f"cannot write {output}: {error}") from error
    size = output.stat().st_size / 2**20
    print(f"{len(kept)} tensors, {size:.1f} MiB: {output}")
    return 0
