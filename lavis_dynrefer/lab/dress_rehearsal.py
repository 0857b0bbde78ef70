"""The full model from nothing, with random files of the published layout and size.

python -m lavis_dynrefer.lab.dress_rehearsal FOLDER

Writes the files (18 GB), serves them on this machine, and runs the commands that a user runs:
download, predict, evaluate, train, resume, export. Prints the time and the peak of each one's own
memory; what each says is in FOLDER/logs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.lab.benchmarks.resource_usage import describe_machine, resident_memory
from lavis_dynrefer.lab.random_weights import RandomFiles, full_size
from lavis_dynrefer.synthetic import write_dataset

_SCENES, _SEED = 3, 5
_BATCH = 2  # regions of a training step
_BOXES = ("120,80,260,210", "20,30,200,180")
_LAST_WRITTEN = "dynrefer.pth"  # of the random files
_NOT_NEEDED = "ram_tag_list.txt"  # for spiece.model, which the random tokenizer does without
_POLL = 0.2  # seconds between two looks at the memory


class Step(NamedTuple):
    """A command of the rehearsal.

    Args:
        name: of its row and its log.
        command: after `python -m`.
    """

    name: str
    command: Sequence[str]


class Measured(NamedTuple):
    """What a command took.

    Args:
        name: of the step.
        seconds: wall clock.
        peak: bytes of memory that no file holds, of the process itself.
    """

    name: str
    seconds: float
    peak: int


def rehearse(folder: Path, *, train: bool) -> list[Measured]:
    """Run all steps; the first that fails ends the rehearsal.

    Args:
        folder: for all files.
        train: also train two steps, resume and export, which take most of the time on a CPU.

    Raises:
        InputError: a step failed; names its log.
    """
    published, data, logs = (folder / name for name in ("published", "data", "logs"))
    logs.mkdir(parents=True, exist_ok=True)
    if not (published / _LAST_WRITTEN).exists():
        RandomFiles(published, full_size()).write()
    write_dataset(data, scenes=_SCENES, seed=_SEED)
    environment = {**os.environ, "DYNREFER_CACHE": str(folder / "cache")}
    with _served(published) as address:
        # Not the published content: sizes and checksums differ.
        options = ["--mirror", address, "--accept-changed"]
        download = Step("download", ["lavis_dynrefer.cli", "download", "flant5xl", *options])
        rows = [_run(download, logs, environment)]
    environment["DYNREFER_OFFLINE"] = "1"  # from here on everything is there
    return rows + [
        _run(step, logs, environment) for step in _steps(folder, data, published, train=train)
    ]


def _steps(folder: Path, data: Path, published: Path, *, train: bool) -> Iterator[Step]:
    image = next((data / "vg/images/VG_100K").glob("*.jpg"))
    boxes = [word for box in _BOXES for word in ("--box", box)]
    predict = ["lavis_dynrefer.cli", "predict", str(image), *boxes, "--model", "flant5xl"]
    run = ["--options", f"run.output_dir={folder / 'runs'}", "run.device=cpu", "run.num_workers=0"]
    coco = [
        f"datasets.coco_region.build_info.root={data / 'coco'}",
        f"datasets.ovad.build_info.root={data / 'ovad'}",
        f"datasets.ovad.build_info.images.storage={data / 'coco/val2017'}",
    ]
    few = [f"datasets.{name}.build_info.max_images=1" for name in ("coco_region", "ovad")]
    checkpoint = str(published / _LAST_WRITTEN)
    yield Step("weights", ["lavis_dynrefer.cli", "weights", "set", "dynrefer", checkpoint])
    yield Step("predict, first", [*predict, "--output", str(folder / "answers_1")])
    yield Step("predict, texts kept", [*predict, "--output", str(folder / "answers_2")])
    evaluation = ["lavis.evaluate", "--cfg-path", "projects/dynrefer/evaluate/coco_ovad.yaml"]
    yield Step("evaluate", [*evaluation, *run, *coco, *few])
    if not train:
        return
    vg = [
        f"datasets.vg_region.build_info.root={data / 'vg'}",
        "datasets.vg_region.build_info.splits=[train]",
        f"datasets.vg_region.build_info.max_regions={2 * _BATCH}",  # two steps
        "run.test_splits=[]",
        f"run.batch_size_train={_BATCH}",
        "run.amp=false",
        "run.resume_ckpt_path=auto",
    ]
    training = ["lavis.train", "--cfg-path", "projects/dynrefer/train/vg_v1.2.yaml", *run, *vg]
    yield Step("train", [*training, "run.max_epoch=1"])
    yield Step("resume", [*training, "run.max_epoch=2"])
    saved = str(max((folder / "runs").rglob("checkpoint_last.pth")))
    exported = str(folder / "exported.safetensors")
    yield Step("export", ["lavis_dynrefer.cli", "export", saved, exported, "--official"])
    again = [*predict, "--checkpoint", exported, "--output", str(folder / "answers_3")]
    yield Step("predict, exported", again)


def _run(step: Step, logs: Path, environment: dict[str, str]) -> Measured:
    log = logs / f"{step.name.replace(', ', '_').replace(' ', '_')}.txt"
    print(f"{step.name}: {' '.join(step.command)}", flush=True)
    start, peak = time.perf_counter(), 0
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *step.command],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        while process.poll() is None:
            peak = max(peak, resident_memory(process.pid).get("anonymous", 0))
            time.sleep(_POLL)
    measured = Measured(step.name, time.perf_counter() - start, peak)
    print(f"  {measured.seconds:.0f} s, {peak / 2**30:.2f} GiB", flush=True)
    if process.returncode:
        raise InputError(f"{step.name} ended with code {process.returncode}; its words: {log}")
    return measured


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """The address at which a folder is served while entered."""
    handler = partial(_ByName, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


class _ByName(SimpleHTTPRequestHandler):
    """Answers any address with the file of that name, wherever it lies below the folder."""

    def translate_path(self, path: str) -> str:
        """The file; one that random files do not have is taken for the list of tags."""
        name = Path(urlparse(path).path).name
        found = next(Path(self.directory).rglob(name), Path(self.directory, _NOT_NEEDED))
        return str(found)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the command that downloads tells."""


def main(argv: Sequence[str] | None = None) -> int:
    """Rehearse; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--no-training", action="store_true", help="stop after the evaluation")
    arguments = parser.parse_args(argv)
    folder = arguments.folder.absolute()
    rows = rehearse(folder, train=not arguments.no_training)
    report = {"machine": describe_machine(), "steps": [row._asdict() for row in rows]}
    (folder / "rehearsal.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    for row in rows:
        print(f"{row.name:24} {row.seconds:8.0f} s {row.peak / 2**30:8.2f} GiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
