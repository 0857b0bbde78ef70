"""Checkpoints of a run: written atomically, read safely, checked key by key.

A checkpoint holds plain containers and tensors only, so `torch.load(weights_only=True)` reads it.
"""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Union

import torch
from torch import Tensor

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.weights.tensor_reading import CheckpointError, read_content
from lavis_dynrefer.paths import expand_home, replace_file
from lavis_dynrefer.training.run_settings import RunSettings

logger = logging.getLogger(__name__)

LAST = "checkpoint_last.pth"
BEST = "checkpoint_best.pth"
_LAUNCHERS = "torchrun.json"  # in the folder of a run
_begun_here: set[Path] = set()  # folders of runs of this process, which no restart has begun

PathLike = Union[str, "os.PathLike[str]"]


def find_resumed(setting: str | None, root: PathLike) -> Path | None:
    """The checkpoint to resume from, if any.

    Args:
        setting: `run.resume_ckpt_path`: a path; "auto" for the newest `checkpoint_last.pth` under
            `root`, if any; None or empty to start a new run.
        root: folder of all runs.
    """
    if setting != "auto":
        return expand_home(setting).absolute() if setting else None
    files = Path(root).rglob(LAST)
    found = max(files, key=lambda path: path.stat().st_mtime, default=None)
    logger.info(
        "run.resume_ckpt_path=auto: %s", found or f"nothing under {root}, starting a new run"
    )
    return found


def find_place(
    run: RunSettings, new: Path, launchers: Sequence[str], *, restarts: int = 0
) -> tuple[Path | None, Path]:
    """The checkpoint to resume from, if any, and the folder to write to.

    What torchrun starts again, after a process has died or a machine has joined, goes on in the
    folder of the run from its last checkpoint, whatever the settings say.

    Args:
        run: its settings.
        new: folder of a new run.
        launchers: the torchruns that have started the processes, as of `process_group`.
        restarts: how often they have.
    """
    resumed = find_resumed(run.resume_ckpt_path, new.parent)
    if run.evaluate:
        return resumed, new
    in_place = resumed.parent if run.resume_in_place and resumed is not None else new
    begun = _begun_by(launchers, {in_place, *_folders(new.parent)})
    if begun is None:
        if restarts:
            logger.warning(
                "torchrun has started the processes again, but under %s they have no run to go "
                "on with; run.resume_ckpt_path=auto continues the newest one there",
                new.parent,
            )
        return resumed, in_place
    last = begun / LAST
    if last.is_file():
        logger.info("torchrun has started the processes again; they go on with %s", last)
        return last, begun
    logger.warning(
        "torchrun has started the processes again before a checkpoint was saved in %s; they begin "
        "anew (run.save_freq saves within epochs)",
        begun,
    )
    return resumed, begun


def keep_launchers(folder: Path, launchers: Sequence[str]) -> None:
    """Note in the folder of a run who has started it, for `find_place`."""
    _begun_here.add(folder)
    if launchers:
        _replace(
            folder / _LAUNCHERS,
            lambda partial: partial.write_text(json.dumps(launchers), encoding="utf-8"),
        )


def _begun_by(launchers: Sequence[str], folders: Iterable[Path]) -> Path | None:
    """The newest folder of a run that one of these torchruns has begun in another process."""
    found = []
    for path in (folder / _LAUNCHERS for folder in folders if folder not in _begun_here):
        try:
            names, changed = json.loads(path.read_text(encoding="utf-8")), path.stat().st_mtime
        except (OSError, ValueError):  # none; or damaged, and then of a machine that died
            continue
        if set(launchers).intersection(names):
            found.append((changed, path.parent))
    return max(found, default=(0.0, None))[1]


def _folders(root: Path) -> list[Path]:
    return [path.parent for path in root.glob(f"*/{_LAUNCHERS}")]


class CheckpointWriteError(InputError):
    """A checkpoint cannot be written; the previous file is intact."""


def write_checkpoint(path: PathLike, content: Mapping[str, Any]) -> None:
    """Write `content` so that a process or machine that dies leaves the old file or the new one.

    Raises:
        CheckpointWriteError: a full disk, a folder that may not be written, and the like.
    """
    _replace(Path(path), lambda partial: _write(partial, content))


def copy_checkpoint(source: Path, folder: Path) -> None:
    """Copy a checkpoint into a folder; as `write_checkpoint`."""
    _replace(folder / source.name, lambda partial: shutil.copyfile(source, partial))


def _replace(target: Path, write: Callable[[Path], object]) -> None:
    partial = target.with_name(target.name + ".tmp")  # in the same folder renaming is atomic
    try:
        write(partial)
        replace_file(partial, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise CheckpointWriteError(
            f"{target} cannot be written: {error.strerror or error}; the previous checkpoint is "
            "intact: free space or correct the folder, then continue with "
            "run.resume_ckpt_path=auto"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


class _Recorder(io.FileIO):
    """A new file that remembers why it could not be written; torch reports something else."""

    error: OSError | None = None

    def write(self, data: Any) -> int | None:
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise


def _write(path: Path, content: Mapping[str, Any]) -> None:
    file = _Recorder(path, "wb")
    try:
        with io.BufferedWriter(file) as buffered:
            torch.save(dict(content), buffered)
            buffered.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        raise (file.error or error) from error


def _sync_folder(path: Path) -> None:
    """Make a renaming outlast a power failure; Windows cannot, and need not."""
    if os.name == "nt":
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_checkpoint(path: PathLike) -> dict[str, Any]:
    """Read a run's checkpoint onto the CPU without running any code stored in it.

    Raises:
        MissingFileError: there is no such file.
        CheckpointError: the file is damaged, or holds other objects, or weights only.
    """
    content = read_content(os.fspath(path))
    content = content if isinstance(content, Mapping) else {}
    kinds = {"model": Mapping, "optimizer": Mapping, "epoch": int}
    absent = [key for key, kind in kinds.items() if not isinstance(content.get(key), kind)]
    if absent:
        raise CheckpointError(
            f"{path} cannot be resumed, it lacks {absent}; use it as run.load_ckpt_path"
        )
    return content


def _tells_kind(setting: Any) -> bool:
    """Whether a setting tells the kind of an optimiser; torch adds switches in new versions."""
    return setting is not None and not isinstance(setting, bool)


def load_optimizer(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any], *, source: PathLike
) -> None:
    """Restore the state of an optimiser; its settings stay those of this run.

    Args:
        optimizer: of this run.
        state: state dict of an optimiser of the same kind and parameters.
        source: where it came from, for messages.

    Raises:
        CheckpointError: another kind of optimiser, or other parameters.
    """
    kind = {name for name, value in optimizer.defaults.items() if _tells_kind(value)}
    try:
        absent = sorted(kind.difference(*state["param_groups"]))
        if absent:
            raise InputError(f"the optimiser had no {absent}")
        known = set().union(*optimizer.param_groups)
        given = [item for group in state["param_groups"] for item in group.items()]
        foreign = sorted({name for name, value in given if _tells_kind(value)} - known)
        if foreign:
            raise InputError(f"the optimiser had {foreign} as well")
        own = [{**group, "params": None} for group in optimizer.param_groups]
        groups = [dict(group) for group in state["param_groups"]]
        for group, settings in zip(groups, own):
            if "fused" in settings:  # torch then puts the numbers of steps beside the weights
                group["fused"] = settings["fused"]
        optimizer.load_state_dict({**state, "param_groups": groups})
        for group, settings in zip(optimizer.param_groups, own):
            group.update(settings, params=group["params"])
        for weight, values in optimizer.state.items():
            for name, value in values.items():  # torch does not compare the shapes
                if isinstance(value, Tensor) and value.ndim and value.shape != weight.shape:
                    shapes = f"{tuple(value.shape)}, not {tuple(weight.shape)}"
                    raise InputError(f"{name} of a parameter is {shapes}")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{source}: other parameters were trained, or by another optimiser ({error}); "
            "use it as run.load_ckpt_path to load its weights only"
        ) from error
