"""The keys under `run:` that the dynrefer task and runner know; any other key is refused."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

UNSET: Any = object()


class RunKey(NamedTuple):
    """One key of the `run` section.

    Args:
        name: as in the yaml.
        kind: type or types of its value; an int passes for a float, None always passes, and a list
            holds words.
        meaning: one line for a reader of the yaml.
        default: value where the yaml has none; UNSET leaves the key out.
        least: smallest number allowed.
        below: smallest number too large.
        choices: words allowed.
    """

    name: str
    kind: Any
    meaning: str
    default: Any = UNSET
    least: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()


RUN_KEYS = (
    RunKey("task", str, "registered name of the task"),
    RunKey("runner", str, "registered name of the runner; runner_dynrefer for the dynrefer task"),
    RunKey("evaluate", bool, "evaluate only", default=False),
    RunKey("device", object, "auto, cpu or cuda; auto takes cuda if there is one", default="auto"),
    RunKey("seed", int, "seed; process r uses seed + r", default=42, least=0, below=2**31),
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
    RunKey("beta2", float, "of AdamW", least=0.001, below=1),
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
    RunKey("batch_size_eval", int, "images per process and step", default=8, least=1),
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
    RunKey("load_ckpt_path", (str, list), "checkpoint, or list of them, to take weights from"),
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


def key_problems(run: Mapping[str, Any]) -> Iterator[str]:
    """What the dynrefer task and runner cannot use: unknown keys, wrong values, missing ones."""
    known = {key.name: key for key in RUN_KEYS}
    for name, value in run.items():
        if name not in known:
            yield f"run: unknown key {name!r}; {suggestion(name, known)}"
        elif value is not None:
            yield from _value_problem(known[name], value)
    missing = [name for name in NEEDED_TO_TRAIN if run.get(name) is None]
    if missing and not run.get("evaluate"):
        meanings = ", ".join(f"run.{name} ({known[name].meaning})" for name in missing)
        yield f"training needs {meanings}; set run.evaluate to evaluate only"


def suggestion(name: str, known: Iterable[str]) -> str:
    """The nearest known name, then all of them.

    >>> suggestion("max_epochs", ["init_lr", "max_epoch"])
    "did you mean 'max_epoch'? known are init_lr, max_epoch"
    """
    names = sorted(known)
    nearest = difflib.get_close_matches(str(name), names, n=1)
    question = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"{question}known are {', '.join(names) or 'none'}"


def _value_problem(key: RunKey, value: Any) -> Iterator[str]:
    """What is wrong with the value of a key, if anything."""
    kinds = key.kind if isinstance(key.kind, tuple) else (key.kind,)
    allowed = (int, float) if key.kind is float else kinds
    place = f"run.{key.name}: expected"
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in kinds):
        yield f"{place} {' or '.join(kind.__name__ for kind in kinds)}, got {value!r}"
    elif isinstance(value, list) and not all(isinstance(item, str) for item in value):
        yield f"{place} a list of words, got {value!r}"
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{place} a finite number, got {value!r}"
    elif key.least is not None and value < key.least:
        yield f"{place} at least {key.least:g}, got {value!r}"
    elif key.below is not None and value >= key.below:
        yield f"{place} less than {key.below:g}, got {value!r}"
    elif key.choices and value not in key.choices:
        yield f"{place} one of {list(key.choices)}, got {value!r}"
