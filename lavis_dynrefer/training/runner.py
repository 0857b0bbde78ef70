"""LAVIS's epoch runner, repaired so that it also runs on a CPU, on one GPU and after a crash.

Only overrides: whatever is not here is `lavis.runners.RunnerBase`. Keys under `run:` that the
stock runner does not know: `find_unused_parameters`, `load_ckpt_path`, `resume_in_place`,
`keep_checkpoints`; `resume_ckpt_path` also takes the word `auto`.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from pathlib import Path
from typing import Any

import lavis.common.optims  # noqa: F401  registers the learning rate schedules
import torch
import torch.distributed as dist
from lavis.common.dist_utils import is_dist_avail_and_initialized, is_main_process, main_process
from lavis.common.registry import registry
from lavis.runners.runner_base import RunnerBase
from lavis.tasks.base_task import BaseTask
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.training import checkpoints, loaders
from lavis_dynrefer.training.loaders import TRAIN

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
        super().__init__(cfg, task, model, datasets, job_id)
        self.best_metric = -math.inf
        self.best_epoch: int | None = None
        if not self.evaluate_only and not any(map(_is_trained, model.parameters())):
            raise InputError("no part of the model is trained; name some in model.trainable")
        self._load_initial_weights()

    # ---- where things run -------------------------------------------------------------------

    @property
    def use_distributed(self) -> bool:
        """Whether a process group is open, whatever the config says."""
        return is_dist_avail_and_initialized()

    @property
    def device(self) -> torch.device:
        """`run.device`, with the index of this process's GPU."""
        if self._device is None:
            run = self.config.run_cfg
            device = torch.device(run.device)
            if device.type == "cuda":
                if not torch.cuda.is_available():
                    raise InputError("run.device is cuda, but torch finds no GPU; set it to cpu")
                index = run.get("gpu") if self.use_distributed else device.index
                index = torch.cuda.current_device() if index is None else index
                device = torch.device("cuda", index)
                torch.cuda.set_device(device)  # LAVIS moves batches with a bare .cuda()
            self._device = device
        return self._device

    @property
    def model(self) -> nn.Module:
        """The model on its device; wrapped for gradient exchange if this run trains in a group."""
        if self._wrapped_model is None:
            self._model = self._wrapped_model = self._model.to(self.device)
            if self.use_distributed and not self.evaluate_only:
                self._wrapped_model = DistributedDataParallel(
                    self._model,
                    device_ids=[self.device.index] if self.cuda_enabled else None,
                    find_unused_parameters=self.config.run_cfg.get("find_unused_parameters", False),
                )
        return self._wrapped_model

    def unwrap_dist_model(self, model: nn.Module) -> nn.Module:
        """The bare model."""
        return model.module if isinstance(model, DistributedDataParallel) else model

    @property
    def scaler(self) -> Any | None:
        """Gradient scaler; only fp16 on CUDA needs one."""
        run = self.config.run_cfg
        fp16 = run.get("amp", False) and run.get("amp_dtype", "fp16") == "fp16"
        if self._scaler is None and fp16 and self.cuda_enabled:
            if hasattr(torch.amp, "GradScaler"):  # torch >= 2.3
                self._scaler = torch.amp.GradScaler("cuda")
            else:
                self._scaler = torch.cuda.amp.GradScaler()
        return self._scaler

    def setup_output_dir(self) -> None:
        """Make the folder of this run: `run.output_dir` (seen from the cwd) / job id.

        With `run.resume_in_place` a resumed run goes on in the folder of its checkpoint.

        Raises:
            OSError: the folder cannot be made.
        """
        run = self.config.run_cfg
        root = Path(run.output_dir).expanduser().absolute()
        self._resume_path = checkpoints.find_resumed(self.resume_ckpt_path, root)
        in_place = run.get("resume_in_place", False) and not self.evaluate_only
        if in_place and self._resume_path is not None:
            self.output_dir = self._resume_path.parent
        else:
            self.output_dir = root / self.job_id
        self.result_dir = self.output_dir / "result"
        try:
            self.result_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"run.output_dir: {root} cannot be written ({error})") from error
        # register_path refuses a second runner in one process
        registry.mapping["paths"].update(
            output_dir=str(self.output_dir), result_dir=str(self.result_dir)
        )

    # ---- data -------------------------------------------------------------------------------

    @property
    def seed(self) -> int:
        """`run.seed`; 42, as in LAVIS's own configs, if there is none."""
        return int(self.config.run_cfg.get("seed", 42))

    @property
    def dataloaders(self) -> dict[str, Any]:
        """Loader of each split this run uses.

        Raises:
            ValueError: a split is unknown, provided twice, empty, or smaller than a batch.
        """
        if self._dataloaders is None:
            if list(self.train_splits) not in ([], [TRAIN]):
                raise InputError(f"run.train_splits: expected [{TRAIN}], got {self.train_splits}")
            chosen = loaders.select_splits(
                self.datasets,
                evaluated=[*self.valid_splits, *self.test_splits],
                training=not self.evaluate_only,
            )
            self._dataloaders = {
                split: self._create_loader(split, dataset) for split, dataset in chosen.items()
            }
            self.datasets = chosen  # from here on by split, as LAVIS's own runner keeps them
        return self._dataloaders

    def _create_loader(self, split: str, dataset: Dataset) -> Any:
        run = self.config.run_cfg
        common = {"num_workers": int(run.num_workers), "cuda": self.cuda_enabled}
        if split == TRAIN and not self.evaluate_only:
            size = int(run.batch_size_train)
            return loaders.training_loader(dataset, batch_size=size, seed=self.seed, **common)
        size = int(run.batch_size_eval)
        shared = self.use_dist_eval_sampler
        return loaders.evaluation_loader(dataset, batch_size=size, shared=shared, **common)

    # ---- training and evaluation ------------------------------------------------------------

    def train(self) -> dict[str, Any]:
        """Train, or only evaluate if `run.evaluate`.

        Returns:
            What the task reported, by evaluated split; None for a split whose metrics this
            process does not hold.

        Raises:
            ValueError: the splits or the checkpoint do not fit; the message says how.
        """
        started = time.monotonic()
        self.log_config()
        sizes = {split: len(self.datasets[split]) for split in self.dataloaders}
        logger.info("samples by split: %s", sizes)
        if self.evaluate_only:
            metrics = self.evaluate("evaluate")
        else:
            self._fit()
            best = self.output_dir / checkpoints.BEST
            has_best = len(self.valid_splits) > 0 and best.is_file()
            last_epoch = max(self.start_epoch, self.max_epoch) - 1
            metrics = self.evaluate("best" if has_best else last_epoch)
        logger.info("finished in %.0f s", time.monotonic() - started)
        return metrics

    def evaluate(self, cur_epoch: int | str = "best", skip_reload: bool = False) -> dict[str, Any]:
        """Evaluate `run.test_splits`, and `run.valid_splits` before them if `run.evaluate`.

        Args:
            cur_epoch: epoch handed to the task; "best" loads the best weights of this run first.
            skip_reload: keep the weights in memory even then.

        Returns:
            As `train`.
        """
        splits = self.dataloaders if self.evaluate_only else self.test_splits
        metrics = {}
        for split in splits:
            metrics[split] = self.eval_epoch(split, cur_epoch, skip_reload)
            if metrics[split] is not None:
                self.log_stats({"epoch": cur_epoch, **metrics[split]}, split)
        return metrics

    def train_epoch(self, epoch: int) -> dict[str, Any]:
        """One pass over the training data; its randomness depends on seed and epoch alone."""
        loaders.start_epoch(self.train_loader, epoch=epoch, seed=self.seed)
        return super().train_epoch(epoch)

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
            model = self._reload_best_model(model)
        model.eval()
        self.task.before_evaluation(model=model, dataset=self.datasets[split_name])
        results = self.task.evaluation(model, loader, cuda_enabled=self.cuda_enabled)
        if results is None:
            return None
        return self.task.after_evaluation(
            val_result=results, split_name=split_name, epoch=cur_epoch
        )

    def _fit(self) -> None:
        if self._resume_path is not None:
            self._load_checkpoint(self._resume_path)
        for epoch in range(self.start_epoch, self.max_epoch):
            stats = self.train_epoch(epoch)
            self.log_stats({"epoch": epoch, **stats}, TRAIN)
            self._save_checkpoint(epoch)  # before validation, which may fail
            self._validate(epoch)
            self._barrier()

    def _validate(self, epoch: int) -> None:
        for position, split in enumerate(self.valid_splits):
            metrics = self.eval_epoch(split, epoch)
            if metrics is None:  # LAVIS tasks may report in the main process only
                continue
            if position == 0:
                self._keep_if_best(epoch, metrics)
            self.log_stats({"epoch": epoch, **metrics, "best_epoch": self.best_epoch}, split)

    def _keep_if_best(self, epoch: int, metrics: dict[str, Any]) -> None:
        if "agg_metrics" not in metrics:
            raise InputError(
                f"{type(self.task).__name__}.after_evaluation must return 'agg_metrics', "
                f"got {sorted(metrics)}"
            )
        metric = float(metrics["agg_metrics"])
        if metric > self.best_metric:
            self.best_metric, self.best_epoch = metric, epoch
            self._save_checkpoint(epoch, is_best=True)

    def _barrier(self) -> None:
        if self.use_distributed:
            dist.barrier()

    # ---- checkpoints ------------------------------------------------------------------------

    def _load_initial_weights(self) -> None:
        paths = self.config.run_cfg.get("load_ckpt_path") or []
        paths = [paths] if isinstance(paths, str) else list(paths)
        if self.evaluate_only and self._resume_path is not None:
            paths.append(str(self._resume_path))
        if paths:
            weights = checkpoints.read_weights(paths)
            checkpoints.load_trained_weights(self._model, weights, source=", ".join(paths))

    @main_process
    def _save_checkpoint(self, cur_epoch: int, is_best: bool = False) -> None:
        content = {
            "model": checkpoints.trained_weights(self.unwrap_dist_model(self.model)),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "config": self.config.to_dict(),
            "epoch": cur_epoch,
        }
        names = [checkpoints.LAST]
        if is_best:
            content["best_metric"] = self.best_metric
            names = [checkpoints.BEST]
        elif self.config.run_cfg.get("keep_checkpoints", False):
            names.append(f"checkpoint_{cur_epoch}.pth")
        for name in names:
            checkpoints.write_checkpoint(self.output_dir / name, content)
            logger.info("epoch %d saved to %s", cur_epoch, self.output_dir / name)

    def _reload_best_model(self, model: nn.Module) -> nn.Module:
        path = self.output_dir / checkpoints.BEST
        if path.is_file():
            weights = checkpoints.read_checkpoint(path)["model"]
            checkpoints.load_trained_weights(model, weights, source=path)
        else:
            logger.warning("there is no %s; the weights in memory are evaluated", path)
        return model

    def _load_checkpoint(self, url_or_filename: Path) -> None:
        path = Path(url_or_filename)
        checkpoint = checkpoints.read_checkpoint(path)
        model = self.unwrap_dist_model(self.model)
        checkpoints.load_trained_weights(model, checkpoint["model"], source=path)
        checkpoints.load_optimizer(self.optimizer, checkpoint["optimizer"], source=path)
        if self.scaler and checkpoint.get("scaler"):
            self.scaler.load_state_dict(checkpoint["scaler"])
        self.start_epoch = checkpoint["epoch"] + 1
        self._restore_best(path.with_name(checkpoints.BEST))
        self._barrier()
        logger.info("resumed from %s; next epoch %d of %d", path, self.start_epoch, self.max_epoch)

    def _restore_best(self, path: Path) -> None:
        """Take over the best epoch so far, with its file, unless it lies after the resumed one."""
        best = checkpoints.read_checkpoint(path) if path.is_file() else {}
        if "best_metric" not in best or best["epoch"] >= self.start_epoch:
            return
        self.best_metric, self.best_epoch = best["best_metric"], best["epoch"]
        if path.parent != self.output_dir and is_main_process():
            shutil.copyfile(path, self.output_dir / checkpoints.BEST)


def _is_trained(parameter: nn.Parameter) -> bool:
    return parameter.requires_grad
