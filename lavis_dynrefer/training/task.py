"""The LAVIS task: training steps, evaluation over all processes, reports."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lavis.common.dist_utils import is_dist_avail_and_initialized, is_main_process
from lavis.common.logger import MetricLogger, SmoothedValue
from lavis.common.registry import registry
from lavis.datasets.data_utils import prepare_sample
from lavis.tasks.base_task import BaseTask
from torch import Tensor, nn

from lavis_dynrefer.config import GenerationConfig, from_mapping
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.metrics import EVALUATORS, render_table
from lavis_dynrefer.structures import MetricReport, RegionPrediction

# What must be asked to grade with an evaluator.
TASKS_OF = {
    "dense_caption": ("caption", "tags"),
    "reg": ("caption", "tags"),
    "attributes": ("attributes",),
    "categories": ("categories",),
}
AMP_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskOptions:
    """Keys of `run:` that this task reads.

    Args:
        protocol_mode: "strict", where a missing answer is a wrong one, or "official".
        max_grad_norm: largest gradient norm; 0 leaves gradients alone, as the released code does.
        amp: autocast; on a CPU only with bf16.
        amp_dtype: "fp16" or "bf16".
        generation: beam search settings that replace the model's.
        chunk: regions encoded at once in evaluation.
    """

    protocol_mode: str = "strict"
    max_grad_norm: float = 0.0
    amp: bool = False
    amp_dtype: str = "fp16"
    generation: Mapping[str, Any] | None = None
    chunk: int = 64


class _Batches:
    """The next batches of a loader, which may never end, with the length LAVIS's log asks for."""

    def __init__(self, loader: Iterable[Any], count: int) -> None:
        self._loader = loader
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        return islice(self._loader, self._count)


@registry.register_task("dynrefer")
class DynReferTask(BaseTask):
    """Trains DynRefer and grades its answers.

    Args:
        options: see `TaskOptions`.
    """

    def __init__(self, options: TaskOptions = TaskOptions()) -> None:
        super().__init__()
        if options.protocol_mode not in ("strict", "official"):
            raise InputError(
                f"run.protocol_mode: expected strict or official, got {options.protocol_mode!r}"
            )
        if options.amp_dtype not in AMP_DTYPES:
            raise InputError(f"run.amp_dtype: expected fp16 or bf16, got {options.amp_dtype!r}")
        from_mapping(GenerationConfig, options.generation or {}, where="run.generation")
        self.options = options
        self.dataset: Any = None

    @classmethod
    def setup_task(cls, cfg: Any) -> DynReferTask:
        """Build from a LAVIS config."""
        run = cfg.run_cfg
        generation = run.get("generation")
        return cls(
            TaskOptions(
                protocol_mode=run.get("protocol_mode", "strict"),
                max_grad_norm=float(run.get("max_grad_norm") or 0),
                amp=bool(run.get("amp", False)),
                amp_dtype=run.get("amp_dtype", "fp16"),
                generation=generation and dict(generation),
                chunk=int(run.get("chunk", 64)),
            )
        )

    def _autocast(self, device: torch.device) -> AbstractContextManager[object]:
        if not self.options.amp:
            return nullcontext()
        if device.type == "cpu" and self.options.amp_dtype != "bf16":
            raise InputError("run.amp on a CPU needs run.amp_dtype: bf16; or set run.amp: false")
        return torch.autocast(device.type, dtype=AMP_DTYPES[self.options.amp_dtype])

    def _train_inner_loop(
        self,
        epoch: int,
        iters_per_epoch: int,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        lr_scheduler: Any,
        scaler: Any = None,
        start_iters: int | None = None,
        log_freq: int = 50,
        cuda_enabled: bool = False,
        accum_grad_iters: int = 1,
    ) -> dict[str, str]:
        """One epoch: LAVIS's loop with clipping, any autocast type, and every loss logged."""
        if start_iters is not None:
            raise InputError("the dynrefer task counts in epochs; use run.max_epoch")
        meters = MetricLogger(delimiter="  ")
        meters.add_meter("lr", SmoothedValue(window_size=1, fmt="{value:.6f}"))
        device = next(model.parameters()).device
        header = f"Train: epoch [{epoch}]"
        batches = _Batches(data_loader, iters_per_epoch)
        for step, batch in enumerate(meters.log_every(batches, log_freq, header)):
            samples = prepare_sample(batch, cuda_enabled=cuda_enabled)
            lr_scheduler.step(cur_epoch=epoch, cur_step=step)
            with self._autocast(device):
                losses = model(samples)
            loss = losses["loss"]
            if not torch.isfinite(loss):
                raise InputError(
                    f"the loss is {loss.item()} at epoch {epoch}, step {step}: "
                    f"{ {name: value.item() for name, value in losses.items()} }; "
                    "lower run.init_lr, set run.max_grad_norm, or use run.amp_dtype: bf16"
                )
            self._backward(loss / accum_grad_iters, scaler)
            # The last batches of an epoch count too, also where they do not fill an accumulation.
            if (step + 1) % accum_grad_iters == 0 or step + 1 == iters_per_epoch:
                self._step(model, optimizer, scaler)
            meters.update(
                lr=optimizer.param_groups[0]["lr"],
                **{name: value.item() for name, value in losses.items()},
            )
        averages = _average_over_processes(meters, device)
        logger.info("Epoch %d: %s", epoch, averages)
        return {name: f"{value:.6f}" for name, value in averages.items()}

    @staticmethod
    def _backward(loss: Tensor, scaler: Any) -> None:
        (loss if scaler is None else scaler.scale(loss)).backward()

    def _step(self, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: Any) -> None:
        if scaler is not None:
            scaler.unscale_(optimizer)
        if self.options.max_grad_norm:
            nn.utils.clip_grad_norm_(
                [weight for weight in model.parameters() if weight.requires_grad],
                self.options.max_grad_norm,
            )
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad()

    def before_evaluation(self, model: nn.Module, dataset: Any, **kwargs: Any) -> None:
        """Remember what is being graded."""
        del model, kwargs
        self.dataset = dataset

    def evaluation(
        self, model: Any, data_loader: Any, cuda_enabled: bool = True
    ) -> list[dict[str, Any]]:
        """Answer every batch of this process, which may have none."""
        rows: list[dict[str, Any]] = []
        # LAVIS's log divides by the number of batches.
        meters = MetricLogger(delimiter="  ")
        batches = meters.log_every(data_loader, 10, "Evaluation") if len(data_loader) else ()
        for samples in batches:
            rows += self.valid_step(model, prepare_sample(samples, cuda_enabled=cuda_enabled))
        return rows

    def valid_step(self, model: Any, samples: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Answer one batch; one row per region, failed ones with their reason."""
        rows = [dict(failure) for failure in samples.get("failed", ())]
        if len(samples["views"]) == 0:
            return rows
        region_set = self.dataset.region_set
        with self._autocast(samples["views"].device):
            predictions = model.predict(
                samples,
                tasks=TASKS_OF[self.dataset.evaluator],
                attributes=region_set.attributes or None,
                categories=region_set.category_names or None,
                generation=self._generation(model),
                chunk=self.options.chunk,
            )
        rows += [
            {"region_id": region_id, "prediction": prediction.to_dict()}
            for region_id, prediction in zip(samples["region_ids"], predictions)
        ]
        return rows

    def _generation(self, model: Any) -> GenerationConfig:
        """The model's settings, but for those that the run names."""
        own = asdict(model.caption_config.generation)
        changes = self.options.generation or {}
        return from_mapping(GenerationConfig, {**own, **changes}, where="run.generation")

    def after_evaluation(
        self, val_result: Sequence[dict[str, Any]], split_name: str, epoch: Any
    ) -> dict[str, Any]:
        """Collect all processes' rows, grade them, and write predictions and report.

        Returns:
            "agg_metrics", the number that ranks checkpoints, and every metric as a float.
        """
        rows = _gather_rows(list(val_result))
        metrics: list[Any] = [None]
        if is_main_process():
            metrics = [self._report(rows, split_name, epoch)]
        if is_dist_avail_and_initialized():
            dist.broadcast_object_list(metrics, src=0)
        return metrics[0]

    def _report(
        self, rows: Sequence[Mapping[str, Any]], split_name: str, epoch: Any
    ) -> dict[str, Any]:
        dataset = self.dataset
        predictions = {
            row["region_id"]: RegionPrediction.from_dict(row["prediction"])
            for row in rows
            if "prediction" in row
        }
        failed = [row for row in rows if "prediction" not in row]
        report = EVALUATORS[dataset.evaluator](
            dataset.region_set, predictions, mode=self.options.protocol_mode
        )
        self._write(report, rows, failed, split_name, epoch)
        metrics = {name: float(value) for name, value in report.metrics.items()}
        return {"agg_metrics": metrics[report.primary], **metrics}

    def _write(
        self,
        report: MetricReport,
        rows: Sequence[Mapping[str, Any]],
        failed: Sequence[Mapping[str, Any]],
        split_name: str,
        epoch: Any,
    ) -> None:
        """Predictions as json lines, report as json and as a table."""
        output = Path(registry.get_path("output_dir"))
        region_set = self.dataset.region_set
        # Detections to be graded are no truth, and rejected truth is no region.
        asked = (*region_set.truth(), *region_set.regions)
        images = {region.region_id: region.image_id for region in asked}
        predictions = output / "result" / f"{split_name}_epoch{epoch}.jsonl"
        with predictions.open("w", encoding="utf-8") as file:
            for row in sorted(rows, key=lambda row: row["region_id"]):
                line = {"image_id": images.get(row["region_id"]), **row}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        table = render_table([report])
        document = {
            **report.to_dict(),
            "split": split_name,
            "epoch": epoch,
            "dataset": self.dataset.name,
            "rejected_at_load": self.dataset.region_set.rejection_counts(),
            "failed": list(failed),
            "predictions": str(predictions),
        }
        stem = output / f"report_{split_name}_epoch{epoch}"
        stem.with_suffix(".json").write_text(json.dumps(document, indent=2), encoding="utf-8")
        stem.with_suffix(".txt").write_text(table, encoding="utf-8")
        logger.info("%s, epoch %s\n%s", split_name, epoch, table)


def _gather_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of every process in rank order, each region once."""
    if is_dist_avail_and_initialized():
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, rows)
        rows = [row for part in parts for row in part]
    return list({row["region_id"]: row for row in rows}.values())


def _average_over_processes(meters: MetricLogger, device: torch.device) -> dict[str, float]:
    """Mean of every meter over all steps of all processes."""
    names = list(meters.meters)
    sums = torch.tensor(
        [[meters.meters[name].total, meters.meters[name].count] for name in names],
        dtype=torch.float64,
        device=device,
    )
    if is_dist_avail_and_initialized():
        dist.all_reduce(sums)
    return {name: float(total / count) for name, (total, count) in zip(names, sums.cpu())}
