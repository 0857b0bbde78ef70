"""What `python -m lavis.train` and `python -m lavis.evaluate` do, for any LAVIS task.

The command line is LAVIS's own: `--cfg-path run.yaml --options run.max_epoch=1 model.x 2 ...`.
"""

from __future__ import annotations

import argparse
import datetime
import getpass
import logging
import os
import random
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lavis import tasks
from lavis.common.dist_utils import get_rank, is_dist_avail_and_initialized
from lavis.common.logger import setup_logger
from lavis.common.registry import registry
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from lavis_dynrefer.ending_signals import EXIT_SIGNAL
from lavis_dynrefer.errors import EXIT_BAD_INPUT, DynReferError, text_for_user
from lavis_dynrefer.metrics.expected import render_comparison
from lavis_dynrefer.models.precision import choose_device, formats_on
from lavis_dynrefer.paths import warn_of_surroundings
from lavis_dynrefer.training.checks.run_checks import load_checked_config
from lavis_dynrefer.training.known_names import registered
from lavis_dynrefer.training.loop.stop_signals import TrainingStopped
from lavis_dynrefer.training.process_group import on_main_process, process_group
from lavis_dynrefer.training.run_config import LaunchError, RunConfig, name_tags
from lavis_dynrefer.training.run_failures import explained_failures, is_first_to_say
from lavis_dynrefer.training.run_settings import OWN_RUNNER

logger = logging.getLogger(__name__)

DEBUG_VARIABLE = "DYNREFER_DEBUG"


@dataclass(frozen=True)
class RunSummary:
    """What a finished run leaves behind.

    Args:
        output_dir: folder of the log, checkpoints and results.
        metrics: evaluated split -> what the task reported; empty after training with one of
            LAVIS's own runners, which only log it.
    """

    output_dir: Path
    metrics: dict[str, Any] = field(default_factory=dict)


def train_main(argv: Sequence[str] | None = None) -> int:
    """`python -m lavis.train`; returns the exit code."""
    return _main(argv, evaluate=False)


def evaluate_main(argv: Sequence[str] | None = None) -> int:
    """`python -m lavis.evaluate`: validation and test splits; returns the exit code."""
    return _main(argv, evaluate=True)


def launch(cfg_path: str, options: Sequence[str] = (), *, evaluate: bool = False) -> RunSummary:
    """Train or evaluate in this process, or as one of those that torchrun started.

    Args:
        cfg_path: yaml file, from the current folder; else one of those shipped in projects/.
        options: "a.b=value", or "a.b" followed by "value".
        evaluate: evaluate only; overrides `run.evaluate`.

    Raises:
        LaunchError: the configuration, the data or the model's files are not usable.
        InputError: torchrun's variables are not usable, or another process has failed.
        TooLittleMemoryError: a step does not fit.
    """
    config, warnings = load_checked_config(cfg_path, options, evaluate=evaluate)
    # Tokenizers run in the main process while loaders fork; without this they warn each time.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    _give_user_a_name()
    run = config.run_cfg
    run.device = str(choose_device(run.device))
    with process_group(run), explained_failures():
        formats_on(run.get("dtype", "auto"), torch.device(run.device))  # fails before the data
        setup_logger()
        _seed_everything(run.seed + get_rank())
        for text in warnings if get_rank() == 0 else ():
            logger.warning(text)
        config.pretty_print()
        try:
            runner = _build_runner(config)
        # OSError: files of LAVIS's own models.
        except (DynReferError, OSError, OmegaConfBaseException) as error:
            raise LaunchError(str(error)) from error
        metrics = _run(runner, run, evaluate=evaluate) or {}
        if config.expected:
            logger.info(render_comparison(config.expected, metrics))
        return RunSummary(Path(runner.output_dir), metrics)


def _build_runner(config: RunConfig) -> Any:
    run = config.run_cfg
    registry.register("configuration", config)  # as LAVIS's own does
    name_tags(config.config, fetch=True)
    task = tasks.setup_task(config)
    datasets = task.build_datasets(config)
    model = task.build_model(config)
    if run.runner != OWN_RUNNER and run.get("load_ckpt_path"):  # ours loads it itself
        paths = run.load_ckpt_path
        model.load_checkpoint(paths if isinstance(paths, str) else paths[0])
    runner_class = registered("runner", run.runner)
    job_id = on_main_process(lambda: datetime.datetime.now().strftime("%Y%m%d%H%M%S"))
    runner = runner_class(cfg=config, job_id=job_id, task=task, model=model, datasets=datasets)
    if run.runner == OWN_RUNNER:
        runner.dataloaders  # noqa: B018  made here, so that an unusable split is found before
    return runner


def _run(runner: Any, run: DictConfig, *, evaluate: bool) -> dict[str, Any] | None:
    if run.runner == OWN_RUNNER or not evaluate:
        return runner.train()
    # `evaluate` of LAVIS's runners leaves out the validation splits.
    return {
        split: runner.eval_epoch(split_name=split, cur_epoch="evaluate", skip_reload=True)
        for split in [*runner.valid_splits, *runner.test_splits]
    }


def _give_user_a_name() -> None:
    """Optimisers of torch ask for it; a container's user, as of `docker run -u 1234`, has none."""
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):  # by version and system
        os.environ["LOGNAME"] = "unknown"


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def _main(argv: Sequence[str] | None, *, evaluate: bool) -> int:
    arguments = _parse(argv, evaluate=evaluate)
    try:
        warn_of_surroundings()
        launch(arguments.cfg_path, arguments.options, evaluate=evaluate)
    except TrainingStopped as stop:
        if os.environ.get("RANK", "0") == "0":
            sys.stderr.write(f"{stop}\n")
        return int(stop.code or 0)
    except KeyboardInterrupt:
        sys.stderr.write(
            "interrupted; run.resume_ckpt_path=auto continues from the last checkpoint\n"
        )
        return EXIT_SIGNAL + signal.SIGINT
    except Exception as error:
        text = text_for_user(error)
        if text is None or arguments.debug or os.environ.get(DEBUG_VARIABLE) == "1":
            raise
        # Before the processes meet, each finds the same in the run's configuration.
        alike = isinstance(error, LaunchError) and not is_dist_avail_and_initialized()
        if (os.environ.get("RANK", "0") == "0" or not alike) and is_first_to_say(text):
            lines = [f"error: {line}" for line in text.splitlines()]
            lines += [f"warning: {line}" for line in getattr(error, "warnings", ())]
            sys.stderr.write("\n".join([*lines, ""]))
        return EXIT_BAD_INPUT
    return 0


def _parse(argv: Sequence[str] | None, *, evaluate: bool) -> argparse.Namespace:
    word = "evaluate" if evaluate else "train"
    parser = argparse.ArgumentParser(prog=f"python -m lavis.{word}")
    parser.add_argument(
        "--cfg-path", required=True, help="yaml of the run: a file, or one shipped in projects/"
    )
    parser.add_argument(
        "--options", nargs="+", default=[], help="settings that override the yaml: a.b=1, or a.b 1"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(argv)
