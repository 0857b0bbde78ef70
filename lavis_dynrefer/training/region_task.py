"""The LAVIS task: training steps, evaluation over all processes, reports."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import lavis  # noqa: F401  first, for threads
import torch
from lavis.common.dist_utils import get_rank, is_main_process
from lavis.common.logger import MetricLogger
from lavis.common.registry import registry
from lavis.datasets.data_utils import prepare_sample
from lavis.tasks.base_task import BaseTask
from omegaconf import OmegaConf
from torch import nn

from lavis_dynrefer.config import GenerationConfig
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.metrics.java_tools import start_meteor
from lavis_dynrefer.models.precision import formats_on
from lavis_dynrefer.questions import Questions
from lavis_dynrefer.settings import from_mapping
from lavis_dynrefer.training.answers.answer_files import (
    AnswerLog,
    remove_unfinished,
    write_answers,
    write_result_json,
)
from lavis_dynrefer.training.answers.run_grading import RESULTS, grade_rows
from lavis_dynrefer.training.checks.data_checks import (
    UsedSplit,
    check_grading,
    check_notes,
    check_texts,
    stop_or_warn,
    used_splits,
)
from lavis_dynrefer.training.checks.text_checks import Counters
from lavis_dynrefer.training.loop.epoch_loop import EpochWatch, Progress, train_epoch
from lavis_dynrefer.training.process_group import gather_on_main_process, on_main_process
from lavis_dynrefer.training.run_settings import TASKS_OF, TaskSettings, read_settings
from lavis_dynrefer.training.run_splits import TRAIN

logger = logging.getLogger(__name__)


@registry.register_task("dynrefer")
class DynReferTask(BaseTask):
    """Trains DynRefer and grades its answers.

    Args:
        settings: keys of `run:` that the task reads.
    """

    reports_steps: ClassVar[bool] = True  # to our runner: `train_epoch` takes progress and watch

    def __init__(self, settings: TaskSettings = TaskSettings()) -> None:  # noqa: B008  frozen
        super().__init__()
        self.settings = settings
        self.dataset: Any = None  # what is being graded
        self._tag_lists: dict[str, Sequence[str]] = {}  # dataset to train on -> its tags
        self._used_splits: Sequence[UsedSplit] = ()
        self._splits: Sequence[tuple[str, Any]] = ()  # name in the run, dataset

    @classmethod
    def setup_task(cls, cfg: Any) -> DynReferTask:
        """Build from a LAVIS config."""
        return cls(read_settings(TaskSettings, OmegaConf.to_container(cfg.run_cfg, resolve=True)))

    def build_datasets(self, cfg: Any) -> dict[str, Any]:
        """As any task; remembers what is trained and evaluated on.

        Raises:
            InputError: a split that the run evaluates cannot be graded.
        """
        datasets = super().build_datasets(cfg)
        self._splits = [item for splits in datasets.values() for item in splits.items()]
        for name, splits in datasets.items():
            tags = getattr(splits.get(TRAIN), "tag_names", None)
            if tags is not None and not cfg.run_cfg.get("evaluate"):
                self._tag_lists[name] = tags
        run = cfg.run_cfg
        self._used_splits = used_splits(
            datasets,
            evaluated=[*run.get("valid_splits", ()), *run.get("test_splits", ())],
            training=not run.get("evaluate"),
        )
        found = [*check_grading(self._used_splits), *check_notes(self._used_splits)]
        stop_or_warn(found, quiet=not is_main_process())
        return datasets

    def build_model(self, cfg: Any) -> nn.Module:
        """As any task.

        Raises:
            InputError: a dataset to train on numbers its tags by another list than the model's, or
                the model's tokenizers know next to nothing of its texts.
        """
        model = super().build_model(cfg)
        for name, tags in self._tag_lists.items():
            _check_tags(name, tags, getattr(model, "tag_names", None))
        texts = check_texts(self._used_splits, Counters.of_model(model))
        stop_or_warn(texts, quiet=not is_main_process())
        return model

    def train_epoch(
        self,
        epoch: int,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        lr_scheduler: Any,
        scaler: Any = None,
        cuda_enabled: bool = False,
        log_freq: int = 50,
        accum_grad_iters: int = 1,
        progress: Progress | None = None,
        watch: EpochWatch | None = None,
    ) -> dict[str, str]:
        """An epoch, or the rest of one; see `loop.epoch_loop.train_epoch`."""
        return train_epoch(
            epoch,
            model,
            data_loader,
            optimizer,
            lr_scheduler,
            settings=self.settings,
            scaler=scaler,
            cuda_enabled=cuda_enabled,
            log_freq=log_freq,
            accum_grad_iters=accum_grad_iters,
            progress=progress,
            watch=watch,
        )

    def train_iters(self, *arguments: Any, **options: Any) -> dict[str, str]:
        """Refused: only LAVIS's runner by iterations calls it."""
        raise InputError("the dynrefer task counts in epochs; use run.max_epoch")

    def before_evaluation(self, model: nn.Module, dataset: Any, **kwargs: Any) -> None:
        """Remember the dataset that is graded."""
        del model, kwargs
        self.dataset = dataset
        folder, split = self._results(), self._split_name()

        def prepare() -> None:
            remove_unfinished(folder, split)
            if "caption" in TASKS_OF[dataset.evaluator]:
                start_meteor()

        on_main_process(prepare)
        self._log = AnswerLog(folder, split, get_rank(), dataset.region_set)

    def evaluation(
        self, model: Any, data_loader: Any, cuda_enabled: bool = True
    ) -> list[dict[str, Any]]:
        """Answer every batch of this process, which may have none."""
        rows: list[dict[str, Any]] = []
        questions = self._questions(model)
        logger.info("Answers in %s", formats_on(self.settings.dtype, model.device))
        meters = MetricLogger(delimiter="  ")
        # LAVIS's log divides by the number of batches.
        batches = meters.log_every(data_loader, 10, "Evaluation") if len(data_loader) else ()
        with self._log:
            for batch in batches:
                samples = prepare_sample(batch, cuda_enabled=cuda_enabled)
                answered = self._answer(model, samples, questions)
                self._log.add(answered)
                rows += answered
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
        answers = model.predict(
            samples, questions=questions, chunk=self.settings.chunk, dtype=self.settings.dtype
        )
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
        everyone = gather_on_main_process(list(val_result))
        path = self._results() / f"{split_name}_epoch{epoch}.jsonl"

        def write() -> list[dict[str, Any]]:
            # LAVIS's own runner lets several processes answer the same region.
            rows = {row["region_id"]: row for part in everyone or () for row in part}
            write_answers(path, rows.values(), self.dataset.region_set)
            if self.settings.result_json:
                write_result_json(path.with_suffix(".json"), rows.values(), self.dataset.region_set)
            return list(rows.values())

        rows = on_main_process(write, share=False)
        self._log.remove()
        return on_main_process(lambda: self._grade(rows or (), split_name, epoch, path))

    def _grade(
        self, rows: Sequence[Mapping[str, Any]], split: str, epoch: Any, path: Path
    ) -> dict[str, Any]:
        mode = self.settings.protocol_mode
        try:
            report = grade_rows(
                self.dataset, rows, split=split, epoch=epoch, written=[path], mode=mode
            )
        except Exception:
            run = path.parents[1]
            logger.error("the answers are in %s; `dynrefer grade %s` grades them", path, run)
            raise
        metrics = {name: float(value) for name, value in report.metrics.items()}
        return {"agg_metrics": metrics[report.primary], **metrics}

    def _split_name(self) -> str:
        """Name in the run of what is graded."""
        names = (name for name, dataset in self._splits if dataset is self.dataset)
        return next(names, str(self.dataset.region_set.split))

    @staticmethod
    def _results() -> Path:
        return Path(registry.get_path("output_dir")) / RESULTS


def _check_tags(dataset: str, tags: Sequence[str], known: Sequence[str] | None) -> None:
    """Check that the tags of a dataset have the same indices as those of the model."""
    if known is None or list(tags) == list(known):
        return
    raise InputError(
        f"datasets.{dataset}.build_info.tags has {len(tags)} tags and model.tagging.vocabulary "
        f"{len(known)}, or in another order: both must name the same file"
    )
