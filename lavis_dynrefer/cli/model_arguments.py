"""Arguments that commands share: bounded numbers, the model, and where a server listens."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Callable

from lavis_dynrefer.config import DTYPES
from lavis_dynrefer.serve.service_limits import DESCRIPTIONS, ServeSettings
from lavis_dynrefer.settings import from_mapping

if TYPE_CHECKING:
    from lavis_dynrefer.predictor import RegionPredictor

HOST = "127.0.0.1"


def at_least(minimum: int) -> Callable[[str], int]:
    """The argparse type of integers from `minimum`."""

    def convert(text: str) -> int:
        number = int(text)
        if number < minimum:
            raise argparse.ArgumentTypeError(f"expected at least {minimum}, got {number}")
        return number

    convert.__name__ = "integer"  # argparse: "invalid integer value"
    return convert


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, checkpoint, device, number formats and chunk."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model", default="tiny", help="tiny, flant5xl, vicuna7b, or a yaml; default tiny"
    )
    group.add_argument("--checkpoint", help="weights instead of the model's own")
    group.add_argument(
        "--device",
        default="auto",
        help="cpu, cuda, cuda:1, ...; default auto: a CUDA GPU where there is one",
    )
    group.add_argument(
        "--dtype",
        default="auto",
        choices=DTYPES,
        help="number formats; default auto: the released ones where the GPU has them, float32 on "
        "a CPU",
    )
    group.add_argument(
        "--chunk",
        type=at_least(1),
        default=64,
        metavar="NUMBER",
        help="most regions computed at once; halved where the memory does not suffice; default 64",
    )
    group.add_argument(
        "--offload",
        action="store_true",
        help="keep text tower and language model in main memory while a GPU has no use for them; "
        "slower",
    )


def check_model(arguments: argparse.Namespace) -> None:
    """Find out what would keep `load_predictor` from loading, without loading.

    Raises:
        InputError, MissingFileError: files, device or number format that cannot be used.
    """
    with redirect_stdout(sys.stderr):
        # Imported here: torch is slow.
        from lavis_dynrefer.models.precision import choose_device, formats_on
        from lavis_dynrefer.models.weights.places import model_section
        from lavis_dynrefer.models.weights.weight_checks import checked_files

        formats_on(arguments.dtype, choose_device(arguments.device))
        section = model_section(arguments.model)
        if arguments.checkpoint is not None:
            section.update(load_finetuned=True, finetuned=arguments.checkpoint)
        checked_files(section)


def checkpoint_in_use(arguments: argparse.Namespace) -> str | None:
    """The checkpoint that was chosen, here or by a variable or once; None: that of the package."""
    from lavis_dynrefer.models.weights.places import checkpoint_of, model_section

    return arguments.checkpoint or checkpoint_of(model_section(arguments.model))


def load_predictor(arguments: argparse.Namespace) -> RegionPredictor:
    """The predictor that the arguments name; what libraries print meanwhile goes to stderr."""
    with redirect_stdout(sys.stderr):
        from lavis_dynrefer.predictor import RegionPredictor  # imports LAVIS: slow

        return RegionPredictor(
            arguments.model,
            device=arguments.device,
            dtype=arguments.dtype,
            checkpoint=arguments.checkpoint,
            chunk=arguments.chunk,
            offload=arguments.offload,
        )


def add_server_arguments(
    parser: argparse.ArgumentParser, *, port: int, settings: ServeSettings, limits: Iterable[str]
) -> None:
    """Address, model and limits.

    Args:
        parser: gets the arguments.
        port: default.
        settings: defaults.
        limits: the settings that become options.
    """
    parser.add_argument(
        "--host", default=HOST, help=f"address to listen on; default {HOST}, this machine only"
    )
    parser.add_argument(
        "--port", type=int, default=port, help=f"default {port}; 0 takes a free one"
    )
    add_model_arguments(parser)
    group = parser.add_argument_group("limits")
    for name in limits:
        default = getattr(settings, name)
        group.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(default),
            default=default,
            metavar="NUMBER",
            help=f"{DESCRIPTIONS[name]}; default {default:,}",
        )


def read_limits(arguments: argparse.Namespace) -> ServeSettings:
    """The limits among the arguments.

    Raises:
        InputError: a number out of its bounds.
    """
    values = {name: value for name, value in vars(arguments).items() if name in DESCRIPTIONS}
    return from_mapping(ServeSettings, values, where="limits")
