"""The LAVIS task: training steps, evaluation over all processes, reports."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lavis.common.dist_utils import is_dist_avail_and_initialized
from lavis.common.logger import MetricLogger, SmoothedValue
from lavis.common.registry import registry
from lavis.datasets.data_utils import prepare_sample
from lavis.tasks.base_task import BaseTask
from omegaconf import OmegaConf
from torch import Tensor, nn

from lavis_dynrefer.config import GenerationConfig
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.metrics import EVALUATORS, render_table
from lavis_dynrefer.models.precision import autocast
from lavis_dynrefer.questions import Questions
from lavis_dynrefer.settings import from_mapping
from lavis_dynrefer.structures import MetricReport
from lavis_dynrefer.training.process_group import on_main_process
from lavis_dynrefer.training.run_settings import TASKS_OF, TaskSettings, read_settings
from lavis_dynrefer.training.run_splits import TRAIN

logger = logging.getLogger(__name__)


class _Batches:
    """The next batches of a loader that may be endless, with the length that LAVIS's log needs."""

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
        settings: keys of `run:` that the task reads.
    """

    def __init__(self, settings: TaskSettings = TaskSettings()) -> None:  # noqa: B008  frozen
        super().__init__()
        self.settings = settings
        self.dataset: Any = None  # what is being graded
        self._tag_lists: dict[str, Sequence[str]] = {}  # dataset to train on -> its tags

    @classmethod
    def setup_task(cls, cfg: Any) -> DynReferTask:
        """Build from a LAVIS config."""
        return cls(read_settings(TaskSettings, OmegaConf.to_container(cfg.run_cfg, resolve=True)))

    def build_datasets(self, cfg: Any) -> dict[str, Any]:
        """As any task; remembers the tags of what is trained on."""
        datasets = super().build_datasets(cfg)
        for name, splits in datasets.items():
            tags = getattr(splits.get(TRAIN), "tag_names", None)
            if tags is not None and not cfg.run_cfg.get("evaluate"):
                self._tag_lists[name] = tags
        return datasets

    def build_model(self, cfg: Any) -> nn.Module:
        """As any task.

        Raises:
            InputError: a dataset to train on numbers its tags by another list than the model's.
        """
        model = super().build_model(cfg)
        for name, tags in self._tag_lists.items():
            _check_tags(name, tags, getattr(model, "tag_names", None))
        return model

    def _autocast(self, device: torch.device) -> AbstractContextManager[object]:
        return autocast(device, self.settings.amp_dtype if self.settings.amp else "float32")

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
        """One epoch: LAVIS's loop plus clipping, any autocast type, and a log of every loss."""
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
            # The last batches of an epoch make a step even if they do not fill an accumulation.
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
        if self.settings.max_grad_norm:
            nn.utils.clip_grad_norm_(
                [weight for weight in model.parameters() if weight.requires_grad],
                self.settings.max_grad_norm,
            )
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad()

    def before_evaluation(self, model: nn.Module, dataset: Any, **kwargs: Any) -> None:
        """Remember the dataset that is graded."""
        del model, kwargs
        self.dataset = dataset

    def evaluation(
        self, model: Any, data_loader: Any, cuda_enabled: bool = True
    ) -> list[dict[str, Any]]:
        """Answer every batch of this process, which may have none."""
        rows: list[dict[str, Any]] = []
        questions = self._questions(model)
        meters = MetricLogger(delimiter="  ")
        # LAVIS's log divides by the number of batches.
        batches = meters.log_every(data_loader, 10, "Evaluation") if len(data_loader) else ()
        for batch in batches:
            rows += self._answer(model, prepare_sample(batch, cuda_enabled=cuda_enabled), questions)
        return rows

    def _questions(self, model: Any) -> Questions:
        """What the evaluator grades, with the model's beam search as the run changes it."""
        region_set = self.dataset.region_set
        beam_search = {**asdict(model.caption_config.generation), **self.settings.generation}
        return Questions(
            tasks=TASKS_OF[self.dataset.evaluator],
            attributes=region_set.attributes or None,
            categories=region_set.category_names or None,
            generation=from_mapping(GenerationConfig, beam_search, where="run.generation"),
        )

    def _answer(
        self, model: Any, samples: Mapping[str, Any], questions: Questions
    ) -> list[dict[str, Any]]:
        """A row per region: region_id, and the prediction or the reason why it failed."""
        rows = [dict(failure) for failure in samples.get("failed", ())]
        if len(samples["views"]) == 0:
            return rows
        with self._autocast(samples["views"].device):
            answers = model.predict(samples, questions=questions, chunk=self.settings.chunk)
        return rows + [
            {"region_id": region_id, "prediction": answer}
            for region_id, answer in zip(samples["region_ids"], answers)
        ]

    def after_evaluation(
        self, val_result: Sequence[dict[str, Any]], split_name: str, epoch: Any
    ) -> dict[str, Any]:
        """Collect the rows of all processes, write them, grade them and write the report.

        Returns:
            "agg_metrics", the number that ranks checkpoints, and every metric as a float.
        """
        rows = _gather_rows(list(val_result))
        return on_main_process(lambda: self._report(rows, split_name, epoch))

    def _report(
        self, rows: Sequence[Mapping[str, Any]], split_name: str, epoch: Any
    ) -> dict[str, Any]:
        dataset, output = self.dataset, Path(registry.get_path("output_dir"))
        # Before grading, which may fail: the answers took longer.
        written = output / "result" / f"{split_name}_epoch{epoch}.jsonl"
        self._write_predictions(rows, written)
        report = EVALUATORS[dataset.evaluator](
            dataset.region_set,
            {row["region_id"]: row["prediction"] for row in rows if "prediction" in row},
            mode=self.settings.protocol_mode,
        )
        details = {
            "split": split_name,
            "epoch": epoch,
            "dataset": dataset.name,
            "rejected_at_load": dataset.region_set.rejection_counts(),
            "failed": [row for row in rows if "prediction" not in row],
            "predictions": str(written),
        }
        _write_report(report, details, output / f"report_{split_name}_epoch{epoch}")
        metrics = {name: float(value) for name, value in report.metrics.items()}
        return {"agg_metrics": metrics[report.primary], **metrics}

    def _write_predictions(self, rows: Sequence[Mapping[str, Any]], path: Path) -> None:
        """One json line per region."""
        region_set = self.dataset.region_set
        # Ground truth, and detections, which have answers too.
        regions = (*region_set.truth(), *region_set.regions)
        images = {region.region_id: region.image_id for region in regions}
        with path.open("w", encoding="utf-8") as file:
            for row in sorted(rows, key=lambda row: row["region_id"]):
                line = {"image_id": images.get(row["region_id"]), **row}
                if "prediction" in row:
                    line["prediction"] = row["prediction"].to_dict()
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _write_report(report: MetricReport, details: Mapping[str, Any], stem: Path) -> None:
    """The report as json and as a table, which is also logged."""
    table = render_table([report])
    document = json.dumps({**report.to_dict(), **details}, indent=2)
    Path(f"{stem}.json").write_text(document, encoding="utf-8")
    Path(f"{stem}.txt").write_text(table, encoding="utf-8")
    logger.info("%s, epoch %s\n%s", details["split"], details["epoch"], table)


def _check_tags(dataset: str, tags: Sequence[str], known: Sequence[str] | None) -> None:
    """Check that the tags of a dataset have the same indices as those of the model."""
    if known is None or list(tags) == list(known):
        return
    raise InputError(
        f"datasets.{dataset}.build_info.tags has {len(tags)} tags and model.tagging.vocabulary "
        f"{len(known)}, or in another order: both must name the same file"
    )


def _gather_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of all processes in rank order, each region once."""
    if is_dist_avail_and_initialized():
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, rows)
        rows = [row for part in parts for row in part]
    return list({row["region_id"]: row for row in rows}.values())


def _average_over_processes(meters: MetricLogger, device: torch.device) -> dict[str, float]:
    """The mean of every meter over all steps of all processes."""
    names = list(meters.meters)
    sums = torch.tensor(
        [[meters.meters[name].total, meters.meters[name].count] for name in names],
        dtype=torch.float64,
        device=device,
    )
    if is_dist_avail_and_initialized():
        dist.all_reduce(sums)
    return {name: float(total / count) for name, (total, count) in zip(names, sums.cpu())}
