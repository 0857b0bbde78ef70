"""The keys under `run:` that the dynrefer task and runner know; any other key is refused."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

UNSET: Any = object()


class RunKey(NamedTuple):
    """One key of the `run` section.

    Args:
        name: as in the yaml.
        kind: type of its value; an int passes for a float, None always passes.
        meaning: one line for a reader of the yaml.
        default: value where the yaml has none; UNSET leaves the key out.
        least: smallest number allowed.
        choices: words allowed.
    """

    name: str
    kind: Any
    meaning: str
    default: Any = UNSET
    least: float | None = None
    choices: tuple[str, ...] = ()


RUN_KEYS = (
    RunKey("task", str, "registered name of the task"),
    RunKey("runner", str, "registered name of the runner; runner_dynrefer for the dynrefer task"),
    RunKey("evaluate", bool, "evaluate only", default=False),
    RunKey("device", str, "auto, cpu or cuda; auto takes cuda if there is one", default="auto"),
    RunKey("seed", int, "seed; process r uses seed + r", default=42, least=0),
    RunKey("output_dir", str, "folder of all runs, from the current folder", default="output"),
    # training
    RunKey("max_epoch", int, "number of epochs", least=1),
    RunKey("init_lr", float, "learning rate after the warmup", least=0),
    RunKey("min_lr", float, "learning rate at the end", default=0.0, least=0),
    RunKey("warmup_lr", float, "learning rate at the first step", least=-1),
    RunKey("warmup_steps", int, "steps of warmup, within the first epoch", least=0),
    RunKey("lr_sched", str, "registered name of the schedule", default="linear_warmup_cosine_lr"),
    RunKey("lr_decay_rate", float, "factor per epoch of linear_warmup_step_lr", least=0),
    RunKey("weight_decay", float, "of AdamW; none on biases and norms", default=0.05, least=0),
    RunKey("beta2", float, "of AdamW", least=0),
    RunKey("accum_grad_iters", int, "batches per optimiser step", least=1),
    RunKey("max_grad_norm", float, "gradients are clipped to this norm", least=0),
    RunKey("amp", bool, "mixed precision"),
    RunKey("amp_dtype", str, "number format of mixed precision", choices=("fp16", "bf16")),
    RunKey("log_freq", int, "batches between two lines of the log", least=1),
    RunKey("find_unused_parameters", bool, "allow parameters without gradient under torchrun"),
    # evaluation
    RunKey(
        "protocol_mode", str, "whether a missing answer is wrong", choices=("strict", "official")
    ),
    RunKey("generation", Mapping, "beam search settings instead of the model's"),
    RunKey("chunk", int, "regions encoded at once", least=1),
    # data
    RunKey("batch_size_train", int, "regions per process and step", least=1),
    RunKey("batch_size_eval", int, "pictures per process and step", default=8, least=1),
    RunKey("num_workers", int, "loader processes per split", default=4, least=0),
    RunKey("train_splits", list, "[train]", default=["train"]),
    RunKey(
        "valid_splits", list, "evaluated after each epoch; the first picks the best", default=[]
    ),
    RunKey("test_splits", list, "evaluated at the end, with the best weights", default=[]),
    RunKey("use_dist_eval_sampler", bool, "share the evaluation between processes"),
    # checkpoints
    RunKey("resume_ckpt_path", str, "checkpoint to continue from; auto finds the last one"),
    RunKey("resume_in_place", bool, "continue in the folder of that checkpoint"),
    RunKey("load_ckpt_path", object, "checkpoint, or list of them, to take weights from"),
    RunKey("keep_checkpoints", bool, "keep a checkpoint of every epoch"),
    # set by the launcher
    RunKey("distributed", bool, "whether torchrun started several processes", default=False),
    RunKey("world_size", int, "number of processes", default=1),
    RunKey("dist_url", str, "where the processes meet", default="env://"),
    RunKey("dist_backend", str, "nccl on cuda, gloo on cpu"),
    RunKey("rank", int, "number of this process"),
    RunKey("gpu", int, "number of this process on its machine"),
)
NEEDED_TO_TRAIN = ("max_epoch", "init_lr", "batch_size_train")


def fill_defaults(run: Mapping[str, Any]) -> dict[str, Any]:
    """`run` with a value for every key that has a default."""
    defaults = {key.name: key.default for key in RUN_KEYS if key.default is not UNSET}
    given = {name: value for name, value in run.items() if value is not None}
    return {**run, **defaults, **given}


def check_keys(run: Mapping[str, Any]) -> None:
    """Refuse what the dynrefer task and runner do not know.

    Raises:
        ValueError: an unknown key, a value of the wrong kind, or a missing one.
    """
    known = {key.name: key for key in RUN_KEYS}
    for name, value in run.items():
        if name not in known:
            raise ValueError(f"run: unknown key {name!r}; {suggestion(name, known)}")
        if value is not None:
            _check_value(known[name], value)
    missing = [name for name in NEEDED_TO_TRAIN if run.get(name) is None]
    if missing and not run.get("evaluate"):
        meanings = ", ".join(f"run.{name} ({known[name].meaning})" for name in missing)
        raise ValueError(f"training needs {meanings}; set run.evaluate to evaluate only")


def suggestion(name: str, known: Iterable[str]) -> str:
    """The nearest known name, then all of them.

    >>> suggestion("max_epochs", ["init_lr", "max_epoch"])
    "did you mean 'max_epoch'? known are init_lr, max_epoch"
    """
    names = sorted(known)
    nearest = difflib.get_close_matches(str(name), names, n=1)
    question = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"{question}known are {', '.join(names) or 'none'}"


def _check_value(key: RunKey, value: Any) -> None:
    kinds = (int, float) if key.kind is float else (key.kind,)
    wrong_kind = not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)
    if wrong_kind and key.kind is not object:
        raise ValueError(f"run.{key.name}: expected {key.kind.__name__}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"run.{key.name}: expected a finite number, got {value!r}")
    if key.least is not None and value < key.least:
        raise ValueError(f"run.{key.name}: expected at least {key.least:g}, got {value!r}")
    if key.choices and value not in key.choices:
        raise ValueError(f"run.{key.name}: expected one of {list(key.choices)}, got {value!r}")
