"""The keys under `run:`, each with its default and its bounds; any other key is refused."""

from collections.abc import Mapping
from dataclasses import field, fields
from typing import Annotated, Any, Literal, Optional, TypeVar

from pydantic import BeforeValidator, Field, Strict, model_validator

from lavis_dynrefer.config import Dtype, GenerationConfig
from lavis_dynrefer.settings import Files, Size, from_mapping, settings

T = TypeVar("T")
Loggers = Annotated[  # a single one may stand without brackets
    tuple[Literal["tensorboard", "wandb"], ...],
    Strict(False),
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
]
OWN_TASK = "dynrefer"
OWN_RUNNER = "runner_dynrefer"
TASKS_OF = {  # evaluator -> the tasks that it grades
    "dense_caption": ("caption", "tags"),
    "reg": ("caption", "tags"),
    "attributes": ("attributes",),
    "categories": ("categories",),
}

MAY_CHANGE = (  # between a run and the one that continues it; the log says so
    *("max_epoch", "init_lr", "min_lr", "warmup_lr", "warmup_steps", "lr_sched", "lr_decay_rate"),
    *("weight_decay", "beta2", "max_grad_norm", "amp", "amp_dtype"),
)


@settings
class TaskSettings:
    """Keys that the dynrefer task reads."""

    protocol_mode: Literal["strict", "official"] = "strict"  # strict: a missing answer is wrong
    generation: Mapping[str, Any] = field(default_factory=dict)  # replaces the model's beam search
    result_json: bool = False  # write answers also as LAVIS does: a json array
    chunk: Size = 64  # regions answered at once in evaluation
    dtype: Dtype = "auto"  # number formats of answers, by the device; see NumberFormats
    amp: bool = False  # mixed precision in training; on a CPU only in bf16
    amp_dtype: Literal["fp16", "bf16"] = "fp16"
    max_grad_norm: float = Field(default=0.0, ge=0)  # 0: no clipping, as in the released code

    @model_validator(mode="after")
    def _check_generation(self) -> "TaskSettings":
        from_mapping(GenerationConfig, self.generation, where="generation")
        return self


@settings
class RunSettings(TaskSettings):
    """Every key of a run of the dynrefer task or runner."""

    task: str = OWN_TASK  # registered name
    runner: str = OWN_RUNNER  # registered name
    evaluate: bool = False  # evaluate only
    device: Any = "auto"  # cpu, cuda or cuda:1; auto takes a GPU if there is one
    seed: int = Field(default=42, ge=0, lt=2**31)  # process r uses seed + r
    output_dir: str = "output"  # folder of all runs, seen from the current folder
    # training
    max_epoch: Optional[Size] = None
    init_lr: Optional[float] = Field(default=None, ge=0, le=1_000)  # after the warmup
    min_lr: float = Field(default=0.0, ge=0, le=1_000)  # at the end
    warmup_lr: float = Field(default=-1.0, ge=-1, le=1_000)  # at the first step; -1: init_lr
    warmup_steps: int = Field(default=0, ge=0)  # within the first epoch
    lr_sched: str = "linear_warmup_cosine_lr"  # registered name
    lr_decay_rate: Optional[float] = Field(default=None, ge=0, le=1_000)  # linear_warmup_step_lr
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: for the matrices, with AdamW for the rest
    weight_decay: float = Field(default=0.05, ge=0, le=1_000)  # not on biases and norms
    beta2: float = Field(default=0.999, ge=0.001, lt=1)  # AdamW
    accum_grad_iters: Size = 1  # batches per optimiser step
    log_freq: Size = 50  # batches between two lines of the log
    loggers: Loggers = ()  # tensorboard, wandb, beside the log and scalars.jsonl
    find_unused_parameters: bool = False  # allow parameters without gradient under torchrun
    feature_cache: Optional[str] = None  # folder for what a frozen ViT makes of the views
    # data
    batch_size_train: Optional[Size] = None  # regions per process and step
    batch_size_eval: Size = 8  # at least this many images per step; more up to `chunk` regions
    num_workers: int = Field(default=4, ge=0, le=10_000)  # loader processes per split
    train_splits: tuple[str, ...] = ("train",)
    valid_splits: tuple[str, ...] = ()  # evaluated after each epoch; the first picks the best
    test_splits: tuple[str, ...] = ()  # evaluated at the end, with the best weights
    use_dist_eval_sampler: bool = True  # share the evaluation between processes
    # checkpoints
    resume_ckpt_path: Optional[str] = None  # checkpoint to continue from; "auto": the last one
    resume_in_place: bool = False  # continue in the folder of that checkpoint
    load_ckpt_path: Optional[Files] = None  # take weights from these checkpoints
    keep_checkpoints: bool = False  # keep a checkpoint of every epoch
    save_freq: int = Field(default=0, ge=0)  # batches between checkpoints within an epoch; 0: none
    # set by the launcher
    distributed: bool = False
    world_size: Size = 1
    dist_url: str = "env://"
    dist_backend: Optional[str] = None
    rank: Optional[int] = None
    gpu: Optional[int] = None

    @model_validator(mode="after")
    def _check_training(self) -> "RunSettings":
        needed = ("max_epoch", "init_lr", "batch_size_train")
        absent = [name for name in needed if getattr(self, name) is None]
        if absent and not self.evaluate:
            names = ", ".join(f"run.{name}" for name in absent)
            raise ValueError(f"training needs {names}; set run.evaluate to evaluate only")
        return self


def read_settings(cls: type[T], run: Mapping[str, Any]) -> T:
    """The settings that `cls` knows out of a run section that may hold others; null: the default.

    Raises:
        SettingsError: values of the wrong type or out of bounds; names them all.
    """
    known = {item.name for item in fields(cls)}  # type: ignore[arg-type]
    given = {name: value for name, value in run.items() if name in known and value is not None}
    return from_mapping(cls, given, where="run")
