"""LAVIS's epoch runner, extended to CPUs, single GPUs, stopping and resuming.

Everything that is not overridden here is `lavis.runners.RunnerBase`. The stock runner does not know
the keys `optimizer`, `find_unused_parameters`, `load_ckpt_path`, `resume_in_place`,
`keep_checkpoints` and `save_freq` of `run:`, nor the word `auto` for `resume_ckpt_path`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import lavis  # noqa: F401  first, for threads
import lavis.common.optims  # noqa: F401  registers the learning rate schedules
import torch
import torch.distributed as dist
from lavis.common.dist_utils import is_dist_avail_and_initialized
from lavis.common.registry import registry
from lavis.datasets.datasets.base_dataset import ConcatDataset
from lavis.runners.runner_base import RunnerBase
from lavis.tasks.base_task import BaseTask
from omegaconf import OmegaConf
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.metrics.java_tools import meteor_kept
from lavis_dynrefer.models.backbone import Backbone
from lavis_dynrefer.models.precision import choose_device, warn_of_slow_bf16, without_denormals
from lavis_dynrefer.models.weights.pretrained import fill_trained, read_trained
from lavis_dynrefer.paths import expand_home
from lavis_dynrefer.training import checkpoints, loaders
from lavis_dynrefer.training.checks.shared_folder import check_shared
from lavis_dynrefer.training.feature_cache import use_feature_cache
from lavis_dynrefer.training.loop.epoch_loop import Progress
from lavis_dynrefer.training.loop.optimizer_choice import choose_optimizer
from lavis_dynrefer.training.loop.run_watch import RunWatch
from lavis_dynrefer.training.loop.scale_weights import weigh_scales_by_loss
from lavis_dynrefer.training.loop.stop_signals import StopSignals, TrainingStopped
from lavis_dynrefer.training.process_group import launchers, on_main_process, restarts
from lavis_dynrefer.training.run_checkpoints import RunCheckpoints, Training
from lavis_dynrefer.training.run_settings import MAY_CHANGE, RunSettings, read_settings
from lavis_dynrefer.training.run_splits import TRAIN, select_splits
from lavis_dynrefer.training.scalars.run_scalars import RunScalars

logger = logging.getLogger(__name__)


@registry.register_runner("runner_dynrefer")
class DynReferRunner(RunnerBase):
    """Trains and evaluates by epoch: one process or many, CPU or CUDA, fresh or resumed.

    Args:
        cfg: LAVIS's `Config`; read through `cfg.run_cfg` and `cfg.to_dict()`.
        task: a LAVIS task.
        model: a LAVIS model, on any device.
        datasets: map-style datasets by dataset name, then split name.
        job_id: name of the folder made under `run.output_dir`; the same in every process.
    """

    def __init__(
        self,
        cfg: Any,
        task: BaseTask,
        model: nn.Module,
        datasets: dict[str, dict[str, Dataset]],
        job_id: str,
    ) -> None:
        self.run = read_settings(RunSettings, OmegaConf.to_container(cfg.run_cfg, resolve=True))
        super().__init__(cfg, task, model, datasets, job_id)
        self._checkpoints = RunCheckpoints(
            self.output_dir, self.config.to_dict(), keep=self.run.keep_checkpoints
        )
        # Whether the task can begin in the middle of an epoch, and tells of its steps.
        self._by_step = getattr(task, "reports_steps", False)
        if self.run.save_freq and not self._by_step:
            logger.warning("run.save_freq: %s is saved after epochs only", type(task).__name__)
        self._resumed = Progress()  # of the epoch to continue
        self._signals = StopSignals()
        self._scalars = RunScalars()
        if not self.run.evaluate and not any(item.requires_grad for item in model.parameters()):
            raise InputError("no part of the model is trained; name some in model.trainable")
        self._load_initial_weights()

    @property
    def use_distributed(self) -> bool:
        """Whether a process group is open, regardless of the config."""
        return is_dist_avail_and_initialized()

    @property
    def device(self) -> torch.device:
        """`run.device`, with the index of this process's GPU."""
        if self._device is None:
            device = choose_device(self.run.device)
            if device.type == "cuda":
                index = self.run.gpu if self.use_distributed else device.index
                index = torch.cuda.current_device() if index is None else index
                device = torch.device("cuda", index)
                torch.cuda.set_device(device)  # LAVIS moves batches with a bare .cuda()
            self._device = device
        return self._device

    @property
    def model(self) -> nn.Module:
        """The model on its device, wrapped in DistributedDataParallel to train in a group."""
        if self._wrapped_model is None:
            self._model = self._wrapped_model = self._model.to(self.device)
            self._store_frozen_weights()
            if self.use_distributed and not self.run.evaluate:
                self._wrapped_model = DistributedDataParallel(
                    self._model,
                    device_ids=[self.device.index] if self.cuda_enabled else None,
                    find_unused_parameters=self.run.find_unused_parameters,
                )
        return self._wrapped_model

    def _store_frozen_weights(self) -> None:
        """Cast them once, not in each step; float16 is right for evaluation, too."""
        if self.run.amp and self.run.amp_dtype == "bf16":
            warn_of_slow_bf16(self.device.type, "run.amp_dtype")
        backbone = getattr(self._model, "backbone", None)
        if self.run.amp and isinstance(backbone, Backbone):
            backbone.store_for(torch.float16)

    def unwrap_dist_model(self, model: nn.Module) -> nn.Module:
        """The bare model."""
        return model.module if isinstance(model, DistributedDataParallel) else model

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """`run.optimizer`."""
        if self._optimizer is None:
            self._optimizer = choose_optimizer(super().optimizer, self.model, self.run)
        return self._optimizer

    @property
    def scaler(self) -> Any | None:
        """Gradient scaler; only fp16 on CUDA needs one."""
        fp16 = self.run.amp and self.run.amp_dtype == "fp16"
        if self._scaler is None and fp16 and self.cuda_enabled:
            if hasattr(torch.amp, "GradScaler"):  # torch >= 2.3
                self._scaler = torch.amp.GradScaler("cuda")
            else:
                self._scaler = torch.cuda.amp.GradScaler()
        return self._scaler

    def setup_output_dir(self) -> None:
        """Make the folder of this run: `run.output_dir` (seen from the cwd) / job id.

        With `run.resume_in_place`, and if torchrun has started the processes again, a run continues
        in the folder of its checkpoint.

        Raises:
            InputError: the folder cannot be made, or is not the same on all machines.
        """
        root = expand_home(self.run.output_dir).absolute()
        started_by = launchers()
        self._resume_path, self.output_dir = on_main_process(
            lambda: checkpoints.find_place(
                self.run, root / self.job_id, started_by or (), restarts=restarts()
            )
        )
        self.result_dir = self.output_dir / "result"
        try:
            self.result_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"run.output_dir: {root} cannot be written ({error})") from error
        check_shared(self.output_dir)
        on_main_process(lambda: checkpoints.keep_launchers(self.output_dir, started_by or ()))
        # Not by register_path, which refuses a second runner in one process.
        registry.mapping["paths"].update(
            output_dir=str(self.output_dir), result_dir=str(self.result_dir)
        )

    @property
    def dataloaders(self) -> dict[str, Any]:
        """Loader of each split this run uses.

        Raises:
            InputError: a split is unknown, provided twice, empty, or smaller than a batch.
        """
        if self._dataloaders is None:
            if self.run.train_splits not in ((), (TRAIN,)):
                raise InputError(f"run.train_splits: expected [{TRAIN}], got {self.train_splits}")
            chosen = select_splits(
                self.datasets,
                evaluated=[*self.run.valid_splits, *self.run.test_splits],
                training=not self.run.evaluate,
            )
            # From here on by split, as LAVIS's own runner keeps them.
            self.datasets = {
                split: ConcatDataset(parts) if split == TRAIN else parts[0]
                for split, parts in chosen.items()
            }
            self._dataloaders = {
                split: self._create_loader(split, dataset)
                for split, dataset in self.datasets.items()
            }
        return self._dataloaders

    def _create_loader(self, split: str, dataset: Dataset) -> Any:
        if len(dataset) == 0:
            raise InputError(f"split {split!r} is empty; check its annotations and filters")
        make = loaders.TrainingLoader if split == TRAIN else loaders.evaluation_loader
        return make(dataset, self.run, cuda=self.cuda_enabled)

    def train(self) -> dict[str, Any]:
        """Train, or only evaluate if `run.evaluate`.

        Returns:
            Evaluated split -> what the task reported; None where only another process knows it.

        Raises:
            InputError: the splits or the checkpoint do not fit.
            TrainingStopped: by a signal, after a checkpoint has been written.
        """
        self.log_config()
        sizes = {split: len(self.datasets[split]) for split in self.dataloaders}
        logger.info("samples by split: %s", sizes)
        with self._scalars:
            if self.run.evaluate:
                self._open_scalars(0)
                metrics = self.evaluate("evaluate")
            else:
                with self._signals.listening():
                    self._fit()
                last_epoch = max(self.start_epoch, self.max_epoch) - 1
                use_best = bool(self.run.valid_splits) and self._checkpoints.has_best()
                metrics = self.evaluate("best" if use_best else last_epoch)
        logger.info("finished in %s", self._checkpoints.time_taken())
        return metrics

    @meteor_kept()
    def evaluate(self, cur_epoch: int | str = "best", skip_reload: bool = False) -> dict[str, Any]:
        """Evaluate `run.test_splits`, and `run.valid_splits` before them if `run.evaluate`.

        Args:
            cur_epoch: epoch passed to the task; "best" loads the best weights of this run first.
            skip_reload: do not load them.

        Returns:
            As `train`.
        """
        splits = self.dataloaders if self.run.evaluate else self.run.test_splits
        metrics = {}
        for split in splits:
            metrics[split] = self.eval_epoch(split, cur_epoch, skip_reload)
            if metrics[split] is not None:
                self.log_stats({"epoch": cur_epoch, **metrics[split]}, split)
        return metrics

    def train_epoch(self, epoch: int) -> dict[str, Any]:
        """One pass over the training data, or what is left of it in a resumed run."""
        progress, self._resumed = self._resumed, Progress()
        self.train_loader.start_epoch(epoch, step=progress.step)
        self._scalars.start_epoch()
        reports = {"progress": progress, "watch": self._watch(epoch)} if self._by_step else {}
        self.model.train()
        with without_denormals(self.device):
            return self.task.train_epoch(
                epoch=epoch,
                model=self.model,
                data_loader=self.train_loader,
                optimizer=self.optimizer,
                scaler=self.scaler,
                lr_scheduler=self.lr_scheduler,
                cuda_enabled=self.cuda_enabled,
                log_freq=self.log_freq,
                accum_grad_iters=self.accum_grad_iters,
                **reports,
            )

    @meteor_kept()
    @torch.no_grad()
    def eval_epoch(
        self, split_name: str, cur_epoch: int | str, skip_reload: bool = False
    ) -> dict[str, Any] | None:
        """Evaluate one split; arguments as in `evaluate`.

        Returns:
            What the task's `after_evaluation` returned.
        """
        loader = self.dataloaders[split_name]
        model = self.unwrap_dist_model(self.model)
        if cur_epoch == "best" and not skip_reload:
            self._checkpoints.load_best(model)
        model.eval()
        self.task.before_evaluation(model=model, dataset=self.datasets[split_name])
        results = self.task.evaluation(model, loader, cuda_enabled=self.cuda_enabled)
        if results is None:
            return None
        return self.task.after_evaluation(
            val_result=results, split_name=split_name, epoch=cur_epoch
        )

    def _watch(self, epoch: int) -> RunWatch:
        return RunWatch(
            epoch,
            self.output_dir,
            lambda progress: self._save(epoch, progress=progress),
            save_freq=self.run.save_freq,
            signals=self._signals,
            scalars=self._scalars,
            model=self.unwrap_dist_model(self.model),
            config=self.config.to_dict(),
            seed=self.run.seed,
        )

    def log_stats(self, stats: Any, split_name: str) -> None:
        """As any runner, to `log.txt`; and to the loggers of the run."""
        super().log_stats(stats, split_name)
        epoch = stats["epoch"] if isinstance(stats["epoch"], int) else self.max_epoch - 1
        self._scalars.add_epoch(epoch, split_name, stats)

    def _open_scalars(self, epoch_length: int) -> None:
        first_step = self.start_epoch * epoch_length + self._resumed.step
        trained = (self.scaler, self.optimizer) if epoch_length else (None, None)
        place = (self.output_dir, self.config.to_dict(), self.run)
        on_main_process(
            lambda: self._scalars.open(*place, first_step, epoch_length, *trained), share=False
        )

    def _fit(self) -> None:
        kept = self._checkpoints
        trained_on = self.datasets[TRAIN].datasets
        if self.run.feature_cache is not None:
            use_feature_cache(self.run.feature_cache, self._model, trained_on)
        self.train_loader.scale_weights = weigh_scales_by_loss(self._model, trained_on)
        if self._resume_path is not None:
            self.start_epoch, self._resumed = kept.resume(self._resume_path, self._training())
            place = f"batch {self._resumed.step} of epoch {self.start_epoch}"
            logger.info("resumed from %s; next: %s of %d", self._resume_path, place, self.max_epoch)
        self._open_scalars(len(self.train_loader))
        if not kept.validated:
            self._finish_epoch(self.start_epoch - 1)
        for epoch in range(self.start_epoch, self.max_epoch):
            with self._signals.deferred(self._by_step):
                stats = self.train_epoch(epoch)
                self.log_stats({"epoch": epoch, **stats}, TRAIN)
                kept.validated = not self.run.valid_splits
                self._save(epoch)  # before validation, which may fail
                signum = self._signals.received_by_any(self.device)
                if signum:
                    raise TrainingStopped(signum, f"epoch {epoch} is saved in {self.output_dir}")
            self._finish_epoch(epoch)

    def _finish_epoch(self, epoch: int) -> None:
        """Validate, and note it in the checkpoint."""
        self._validate(epoch)
        if not self._checkpoints.validated:
            self._checkpoints.validated = True
            self._save(epoch)
        if self.use_distributed:
            dist.barrier()

    def _validate(self, epoch: int) -> None:
        for position, split in enumerate(self.run.valid_splits):
            metrics = self.eval_epoch(split, epoch)
            if position == 0:
                self._keep_if_best(epoch, metrics)
            best_epoch = self._checkpoints.best_epoch
            if metrics is not None:  # some LAVIS tasks report in the main process only
                self.log_stats({"epoch": epoch, **metrics, "best_epoch": best_epoch}, split)

    def _keep_if_best(self, epoch: int, metrics: Mapping[str, Any] | None) -> None:
        def read() -> float:
            if metrics is None or "agg_metrics" not in metrics:
                raise InputError(
                    f"{type(self.task).__name__}.after_evaluation must return 'agg_metrics', "
                    f"got {sorted(metrics or ())}"
                )
            return float(metrics["agg_metrics"])

        metric, kept = on_main_process(read), self._checkpoints
        if metric > kept.best_metric:
            kept.best_metric, kept.best_epoch = metric, epoch
            self._save(epoch, is_best=True)

    def _load_initial_weights(self) -> None:
        paths = list(self.run.load_ckpt_path or ())
        if self.run.evaluate and self._resume_path is not None:
            paths.append(str(self._resume_path))
        if paths:
            weights = read_trained(paths, key="run.load_ckpt_path")
            fill_trained(self._model, weights, source=", ".join(paths))

    def _save(self, epoch: int, *, progress: Progress | None = None, is_best: bool = False) -> None:
        self._checkpoints.save(self._training(), epoch, progress=progress, is_best=is_best)

    def _training(self) -> Training:
        return Training(
            self.unwrap_dist_model(self.model),
            self.optimizer,
            self.scaler,
            self.lr_scheduler,
            loaders.identity(self.datasets[TRAIN], self.run),
            {f"run.{name}": getattr(self.run, name) for name in MAY_CHANGE},
        )
