"""Make the probabilities of a model right, on a validation split.

dynrefer calibrate output/20261128195021
dynrefer calibrate model.safetensors --data projects/dynrefer/tune_tiny.yaml

Fits a scale and a bias for attributes, categories and tags, as far as the data have such labels,
and what is familiar, on regions of the training split. They become part of the checkpoint; further
training ends them. What was measured before and after is printed, and written to calibration.json,
which `dynrefer report` draws. Rankings and scores stay as they are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lavis_dynrefer.cli.model_arguments import at_least
from lavis_dynrefer.config import DTYPES
from lavis_dynrefer.errors import InputError

_LOG = "log.txt"  # in the folder of a run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer calibrate`."""
    parser.add_argument(
        "model", type=Path, help="folder of a run, or a checkpoint (.pth or .safetensors)"
    )
    parser.add_argument(
        "--data", help="run file whose data and model are used; of a run, its own by default"
    )
    parser.add_argument("--options", nargs="+", default=[], help="settings of the run that differ")
    parser.add_argument(
        "--splits",
        nargs="+",
        default=[],
        help="fit on these; by default run.valid_splits, val or others with labels, and those of "
        "run.test_splits only if there are no others",
    )
    parser.add_argument(
        "--regions",
        type=at_least(16),
        default=2000,
        metavar="NUMBER",
        help="of each split, about; default 2000",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="checkpoint to write; by default the one that is calibrated (of a run the best one, "
        "else the last)",
    )
    parser.add_argument("--device", default="auto", help="default auto: a CUDA GPU, else the CPU")
    parser.add_argument("--dtype", default="auto", choices=DTYPES, help="number formats")


def run(arguments: argparse.Namespace) -> int:
    """Calibrate; returns the exit code."""
    checkpoint = _checkpoint(arguments.model)
    output: Path = arguments.output or checkpoint
    if output.suffix != checkpoint.suffix or not output.parent.is_dir():
        raise InputError(
            f"{output}: expected the name of a {checkpoint.suffix} file in an existing folder"
        )
    with redirect_stdout(sys.stderr):
        values, report = _calibrate(arguments, checkpoint)
        from lavis_dynrefer.training.calibrating.calibration_run import store, write_report

        store(checkpoint, output, values)
        path = write_report(output.parent, {"checkpoint": output.name, **report})
    _print(report)
    print(f"{len(values)} values in {output}; measured: {path}")
    return 0


def _checkpoint(model: Path) -> Path:
    if not model.is_dir():
        if model.suffix not in (".pth", ".pt", ".safetensors"):
            raise InputError(
                f"{model}: expected the folder of a run, or a checkpoint (.pth, .pt, .safetensors)"
            )
        return model
    names = ("checkpoint_best.pth", "checkpoint_last.pth")
    found = [model / name for name in names if (model / name).is_file()]
    if not found:
        raise InputError(f"{model}: expected the folder of a run with one of {list(names)}")
    return found[0]


def _calibrate(
    arguments: argparse.Namespace, checkpoint: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    import lavis  # noqa: F401  first, for threads
    from lavis import tasks

    from lavis_dynrefer.models.answering import Answerer
    from lavis_dynrefer.models.dynrefer import DynRefer
    from lavis_dynrefer.models.precision import choose_device, formats_on
    from lavis_dynrefer.training.calibrating.calibration_run import (
        calibrate,
        choose_familiar,
        choose_sources,
    )
    from lavis_dynrefer.vocab import build_tagger

    config = _config(arguments)
    config.run_cfg.evaluate = True
    run = config.run_cfg
    datasets = tasks.setup_task(config).build_datasets(config)
    splits = {"validation": run.get("valid_splits") or (), "test": run.get("test_splits") or ()}
    sources = choose_sources(datasets, **splits, splits=arguments.splits)
    device = choose_device(arguments.device)
    section = config.model_cfg
    section.load_finetuned, section.finetuned = True, str(checkpoint)
    model = DynRefer.from_config(section).eval().to(device)
    methods = {
        name: item.build_info.get("tag_method", "match")
        for name, item in config.datasets_cfg.items()
    }
    built = {method: build_tagger(method, model.tagging.tags) for method in set(methods.values())}
    return calibrate(
        Answerer(model, formats_on(arguments.dtype, device)),
        sources,
        choose_familiar(datasets, **splits),
        taggers={name: built[method] for name, method in methods.items()},
        most=arguments.regions,
    )


def _config(arguments: argparse.Namespace) -> Any:
    from lavis_dynrefer.training.answers.run_grading import run_configuration
    from lavis_dynrefer.training.run_config import load_run_config

    if arguments.data is not None:
        return load_run_config(arguments.data, arguments.options, evaluate=True)
    if not (arguments.model / _LOG).is_file():
        raise InputError(f"{arguments.model} is not a run; name one whose data are used: --data")
    return run_configuration(arguments.model, arguments.options)


def _print(report: Mapping[str, Any]) -> None:
    heads = ("calibration error", "precision at p >= .5", "recall")
    table = Table("", "split", "regions", *heads, title="before → after, in percent")
    for kind, one in report["kinds"].items():
        split = one["split"] + (" (test)" if one["is_test_split"] else "")
        changes = [
            " → ".join(
                "-" if one[when][name] is None else f"{100 * one[when][name]:.1f}"
                for when in ("before", "after")
            )
            for name in ("error", "precision", "recall")
        ]
        table.add_row(kind, split, f"{one['regions']['measured']:,}", *changes)
    Console().print(table)
    known = report.get("familiarity")
    if known is not None:
        print(
            f"familiar: {known['training_regions']:,} training regions; "
            f"{100 * known['threshold']:.0f} % of {known['held_out_regions']:,} others are below "
            f"{known['threshold']}"
        )
