"""The training loop: LAVIS's plus clipping, any autocast type, a log of every loss, and stops."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import lavis  # noqa: F401  first, for threads
import torch
import torch.distributed as dist
from lavis.common.dist_utils import is_dist_avail_and_initialized
from lavis.common.logger import MetricLogger, SmoothedValue
from lavis.datasets.data_utils import prepare_sample
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lavis_dynrefer.errors import InputError, shorten
from lavis_dynrefer.models.precision import autocast
from lavis_dynrefer.training.run_settings import TaskSettings

logger = logging.getLogger(__name__)

_CURES = "lower run.init_lr, set run.max_grad_norm, or use run.amp_dtype: bf16"


class NotFiniteError(InputError):
    """The loss or weights are nan or infinite, in this process or in another one."""


@dataclass
class Progress:
    """How far an epoch has come, at its last optimiser step.

    Args:
        step: batches done.
        totals: name of a loss -> its sum over these batches, and their number; of all processes in
            a checkpoint, else of this one.
    """

    step: int = 0
    totals: dict[str, tuple[float, int]] = field(default_factory=dict)


class EpochWatch:
    """What a loop reports to; this one, of runs with LAVIS's own runner, does nothing."""

    def asked_to_stop(self) -> int:
        """Number of the signal that asked this process to stop; 0 without one."""
        return 0

    def after_step(self, progress: Progress, signum: int) -> None:
        """An optimiser step is done, but not the last; `signum` is the same in every process."""

    def after_batch(
        self,
        step: int,
        values: Mapping[str, float],
        *,
        regions: int,
        updated: bool,
        norm: Tensor | None,
    ) -> None:
        """A batch is done; see `RunScalars.add_batch`. `regions` are those of this process."""

    def on_bad_loss(self, step: int, samples: Mapping[str, Any]) -> str:
        """Keep what a loss that is not finite came from; returns a sentence about it."""
        del step, samples
        return ""


def train_epoch(
    epoch: int,
    model: nn.Module,
    loader: Iterable[Any],
    optimizer: torch.optim.Optimizer,
    lr_scheduler: Any,
    *,
    settings: TaskSettings,
    scaler: Any = None,
    cuda_enabled: bool = False,
    log_freq: int = 50,
    accum_grad_iters: int = 1,
    progress: Progress | None = None,
    watch: EpochWatch | None = None,
) -> dict[str, str]:
    """Train for an epoch, or for the rest of one.

    Args:
        epoch: counted from 0.
        model: samples -> losses, of which "loss" is trained on; may be wrapped for distributed
            training.
        loader: batches from `progress.step` on; its length is that of a whole epoch.
        optimizer: of the model.
        lr_scheduler: with LAVIS's `step(cur_epoch, cur_step)`.
        settings: precision and clipping.
        scaler: gradient scaler for fp16.
        cuda_enabled: copy batches to the GPU.
        log_freq: batches between two lines of the log.
        accum_grad_iters: batches per optimiser step. The last batches of an epoch make a step even
            if they are fewer.
        progress: where a resumed run continues.
        watch: is told about every optimiser step.

    Returns:
        Mean of each loss and of the learning rate over the epoch and all processes, as text.

    Raises:
        NotFiniteError: in all processes together.
    """
    progress, watch = progress or Progress(), watch or EpochWatch()
    meters = _meters(progress)
    device = next(model.parameters()).device
    left = max(0, len(loader) - progress.step)  # type: ignore[arg-type]
    batches = _Batches(loader, left)
    header = f"Train: epoch [{epoch}]" + (f" from {progress.step}" if progress.step else "")
    end = progress.step + left
    regions: list[str] = []  # of the batches since the last optimiser step
    before: list[str] = []  # of the last optimiser step
    # Closed at once where the loop is left, as long as its workers listen.
    with closing(_logged(meters, batches, log_freq, header)) as logged:
        for step, batch in enumerate(logged, progress.step):
            samples = prepare_sample(batch, cuda_enabled=cuda_enabled)
            lr_scheduler.step(cur_epoch=epoch, cur_step=step)
            steps_now = (step + 1) % accum_grad_iters == 0 or step + 1 == end
            with _sync(model, gradients=steps_now):
                with autocast(device, settings.amp_dtype if settings.amp else "float32"):
                    losses = model(samples)
                values, bad, signum = _read(losses, watch.asked_to_stop())
                if bad:
                    kept = watch.on_bad_loss(step, samples)
                    place = f"epoch {epoch}, step {step}"
                    if math.isfinite(values["loss"]):
                        raise NotFiniteError(
                            f"the loss of another process is not finite at {place}; its message "
                            f"says why{kept}"
                        )
                    why = _bad_loss(values, _regions(samples), model, before)
                    raise NotFiniteError(f"the loss is {values['loss']} at {place}: {why}{kept}")
                loss = losses["loss"] / accum_grad_iters
                (loss if scaler is None else scaler.scale(loss)).backward()
            regions.append(_regions(samples))
            values["lr"] = optimizer.param_groups[0]["lr"]
            meters.update(**values)
            norm = None
            if steps_now:
                norm = _update(model, optimizer, scaler, settings.max_grad_norm)
            count = len(samples.get("region_ids", ()))
            watch.after_batch(step, values, regions=count, updated=steps_now, norm=norm)
            if steps_now:
                before, regions = regions, []
                progress.step = step + 1
                progress.totals = {
                    name: (meter.total, meter.count) for name, meter in meters.meters.items()
                }
                if step + 1 < end:
                    watch.after_step(progress, signum)
    sums = sum_over_processes(progress.totals, device)
    averages = {name: total / count for name, (total, count) in sums.items()}
    logger.info("Epoch %d: %s", epoch, averages)
    return {name: f"{value:.6f}" for name, value in averages.items()}


def sum_over_processes(
    totals: Mapping[str, tuple[float, int]], device: torch.device
) -> dict[str, tuple[float, int]]:
    """Sums and counts of all processes together; the names are the same in each."""
    if not totals or not is_dist_avail_and_initialized():
        return dict(totals)
    sums = torch.tensor(list(totals.values()), dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    return {name: (total, int(count)) for name, (total, count) in zip(totals, sums.tolist())}


class _Batches:
    """The next batches of a loader that may be endless, with the length that LAVIS's log needs."""

    def __init__(self, loader: Iterable[Any], count: int) -> None:
        self._loader = loader
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        return islice(self._loader, self._count)


def _logged(meters: MetricLogger, batches: _Batches, log_freq: int, header: str) -> Iterator[Any]:
    if len(batches):  # LAVIS's log divides by their number
        yield from meters.log_every(batches, log_freq, header)


def _meters(progress: Progress) -> MetricLogger:
    meters = MetricLogger(delimiter="  ")
    meters.add_meter("lr", SmoothedValue(window_size=1, fmt="{value:.6f}"))
    for name, (total, count) in progress.totals.items():
        meters.meters[name].total, meters.meters[name].count = total, count
    return meters


def _sync(model: nn.Module, *, gradients: bool) -> AbstractContextManager[Any]:
    """Gradients that are accumulated further need not be exchanged between processes."""
    wrapped = isinstance(model, DistributedDataParallel)
    return model.no_sync() if wrapped and not gradients else nullcontext()


def _read(losses: Mapping[str, Tensor], asked: int) -> tuple[dict[str, float], bool, int]:
    """The losses as numbers, by a single copy from the device, and what all processes agree on.

    Args:
        losses: scalars, with "loss".
        asked: signal that asked this process to stop, or 0.

    Returns:
        The losses; whether "loss" is not finite in any process; the signal that any has got.
    """
    values = torch.stack([value.detach().float() for value in losses.values()])
    if not is_dist_avail_and_initialized():
        numbers = dict(zip(losses, values.tolist()))
        return numbers, not math.isfinite(numbers["loss"]), asked
    agreed = torch.stack(
        [(~torch.isfinite(losses["loss"].detach())).float(), torch.full_like(values[0], asked)]
    )
    dist.all_reduce(agreed, dist.ReduceOp.MAX)
    *read, bad, signum = torch.cat([values, agreed]).tolist()
    return dict(zip(losses, read)), bool(bad), int(signum)


def _update(
    model: nn.Module, optimizer: torch.optim.Optimizer, scaler: Any, max_grad_norm: float
) -> Tensor | None:
    """An optimiser step; returns the norm of the gradients before clipping, if they are clipped."""
    norm = None
    if scaler is not None:
        scaler.unscale_(optimizer)
    if max_grad_norm:
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        norm = nn.utils.clip_grad_norm_(trained, max_grad_norm)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    optimizer.zero_grad()
    return norm


def check_finite(model: nn.Module) -> None:
    """Refuse to go on with trained weights that are nan or infinite.

    Raises:
        NotFiniteError: names some.
    """
    broken = _broken(model)
    if broken:
        raise NotFiniteError(
            f"{len(broken)} weights are not finite, such as {broken[0]}, and are not saved; the "
            f"previous checkpoint is intact: continue from it, and {_CURES}"
        )


def _broken(model: nn.Module) -> list[str]:
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    if not trained:
        return []
    finite = torch.stack([weight.detach().isfinite().all() for _, weight in trained]).tolist()
    return [name for (name, _), good in zip(trained, finite) if not good]


def _bad_loss(
    values: Mapping[str, float], regions: str, model: nn.Module, before: Sequence[str]
) -> str:
    """Why the loss may be bad, and what to do."""
    broken = _broken(model)
    if broken:
        seen = shorten("; ".join(filter(None, before)), 400) or "regions unknown"
        return (
            f"{len(broken)} weights are not finite, such as {broken[0]}, since the step before "
            f"({seen}); continue from the checkpoint before, and {_CURES}"
        )
    return f"{dict(values)}{regions and f' with {regions}'}; {_CURES}"


def _regions(samples: Mapping[str, Any]) -> str:
    """Which regions a batch has, for messages; empty for other kinds of batches."""
    ids = samples.get("region_ids")
    if not ids:
        return ""
    names = ", ".join(sorted(set(samples.get("datasets", ()))))
    return f"regions {shorten(', '.join(map(str, ids)), 400)}{names and f' of {names}'}"
