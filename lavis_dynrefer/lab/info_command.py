"""What a model consists of, where its files are, and what it takes in memory.

dynrefer info --model flant5xl
dynrefer info --model flant5xl --batch 16 --beams 5 --json

The memory is that of a GPU. It is computed with tensors that take none, so neither a GPU nor the
weights are needed; for the full model that takes a minute. Not included: CUDA's own (about half a
GiB), and fragments. int8: the released formats, with the language model stored in 8 bit.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lavis_dynrefer.config import LAVIS_KEYS, MODELS
from lavis_dynrefer.errors import InputError

ROWS = ("float32", "released", "bfloat16", "int8")
_RELEASED_TAGS = 4585  # where the tag list is not here


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer info`."""
    types = ", ".join(sorted(MODELS["dynrefer"].yamls))
    parser.add_argument("--model", default="tiny", help=f"{types}, or a yaml; default tiny")
    parser.add_argument("--checkpoint", help="as in predict; only listed")
    parser.add_argument("--batch", type=int, default=64, help="regions at once; default 64")
    parser.add_argument("--beams", type=int, help="of the beam search; default that of the model")
    parser.add_argument("--views", type=int, help="of a region; default that of the model")
    parser.add_argument("--dtype", choices=ROWS, help="only these number formats; default all")
    parser.add_argument("--json", action="store_true", help="print json; sizes in bytes")


def run(arguments: argparse.Namespace) -> int:
    """Print the tables; returns the exit code."""
    for option in ("batch", "beams", "views"):
        value = getattr(arguments, option)
        if value is not None and value < 1:
            raise InputError(f"--{option}: expected at least 1, got {value}")
    report = describe(
        arguments.model,
        checkpoint=arguments.checkpoint,
        batch=arguments.batch,
        beams=arguments.beams,
        views=arguments.views,
        rows=[arguments.dtype] if arguments.dtype else ROWS,
    )
    text = json.dumps(report, indent=2) + "\n" if arguments.json else _tables(report)
    sys.stdout.write(text)
    return 0


def describe(
    name: str,
    *,
    checkpoint: str | None = None,
    batch: int = 64,
    beams: int | None = None,
    views: int | None = None,
    rows: tuple[str, ...] | list[str] = ROWS,
) -> dict[str, Any]:
    """Parts, files and memory of a model; sizes in bytes.

    Args:
        name: type of the model, or a yaml.
        checkpoint: a DynRefer checkpoint.
        batch: regions at once.
        beams: of the beam search.
        views: of a region.
        rows: some of `ROWS`.

    Raises:
        InputError: no such model, or one that does not use Flan-T5.
    """
    from lavis_dynrefer.config import DynReferConfig
    from lavis_dynrefer.lab import memory_table
    from lavis_dynrefer.lab.benchmarks.model_sizes import model_of_section
    from lavis_dynrefer.models.weights.places import model_section
    from lavis_dynrefer.settings import from_mapping

    section = model_section(name)
    if checkpoint is not None:
        section["finetuned"] = checkpoint
    if section.get("captioning", {}).get("llm", "flan_t5") != "flan_t5":
        raise InputError("info: the memory is computed for models with Flan-T5 only")
    files = _files(section)
    with tempfile.TemporaryDirectory() as folder:
        own = _without_files(section, Path(folder))
        if views is not None:
            own["region"] = {**own.get("region", {}), "num_views": views}
        config = from_mapping(DynReferConfig, own, where="model")

        def build() -> Any:
            return model_of_section(own)

        beams = beams or config.captioning.generation.num_beams
        return {
            "model": name,
            "parts": memory_table.parts_of(build()),
            "files": files,
            "batch": batch,
            "beams": beams,
            "views": config.region.num_views,
            "answers": {
                row: memory_table.answer_memory(build, config, batch=batch, beams=beams, row=row)
                for row in rows
            },
            "training": memory_table.training_memory(build, config, batch=batch),
        }


def _files(section: Mapping[str, Any]) -> dict[str, str]:
    """Part -> its path, or where it can be had."""
    from lavis_dynrefer.models.weights.places import describe_part, look_up

    found = look_up(section)
    files = {name: str(path) for name, path in found.here.items()}
    files |= {name: f"not here: {describe_part(found, name)}" for name in found.absent}
    named = {
        **(section.get("pretrained") or {}),
        "language model": section["captioning"].get("llm_options", {}).get("pretrained"),
        "checkpoint": section.get("finetuned"),
    }
    return files | {
        name: str(value) for name, value in named.items() if value not in (None, "auto")
    }


def _without_files(section: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The numbers of a section, with stand-ins for the files that it names."""
    from lavis_dynrefer.models.weights.places import look_up

    own = {key: value for key, value in section.items() if key not in LAVIS_KEYS}
    options = dict(own["captioning"].get("llm_options", {}))
    if options.pop("pretrained", None):
        options["tokenizer"] = "assets/tiny/tokenizer.json"
        options["dtype"] = "bfloat16"
        if "config" not in options:
            raise InputError("info: name the sizes of T5 in captioning.llm_options.config")
    own["captioning"] = {**own["captioning"], "llm_options": options}
    tagging = dict(own.get("tagging", {}))
    if tagging.get("vocabulary") in (None, "auto"):
        path = look_up(section).here.get("tags")
        if path is None:
            path = folder / "tags.txt"
            names = (f"tag {number}" for number in range(_RELEASED_TAGS))
            path.write_text("\n".join(names), encoding="utf-8")
        tagging["vocabulary"] = str(path)
    own["tagging"] = tagging
    return own


def _tables(report: Mapping[str, Any]) -> str:
    from lavis_dynrefer.metrics import plain_table

    large = max(row["peak"] for row in report["answers"].values()) >= 2**30
    unit, scale = ("GiB", 2**30) if large else ("MiB", 2**20)

    def sizes(row: Mapping[str, int]) -> list[str]:
        return [f"{size / scale:.2f}" for size in row.values()]

    stored = sizes({name: row["stored"] for name, row in report["parts"].items()})
    parts = [
        [name, *(f"{row[key] / 1e6:,.1f}" for key in ("parameters", "trained")), size]
        for (name, row), size in zip(report["parts"].items(), stored)
    ]
    columns = list(next(iter(report["answers"].values())))
    answers = [[name, *sizes(row)] for name, row in report["answers"].items()]
    training = list(zip(report["training"], sizes(report["training"])))
    files = "".join(f"  {name}: {place}\n" for name, place in report["files"].items())
    asked = f"{report['batch']} regions with {report['views']} views"
    return "\n".join(
        [
            f"{report['model']}: parameters in millions, stored size in {unit}",
            plain_table(["part", "parameters", "trained", "stored"], parts, numbers=3),
            f"Files:\n{files}",
            f"Answers on a GPU: {asked}, {report['beams']} beams; peak of each stage in {unit}",
            plain_table(["number formats", *columns], answers, numbers=len(columns)),
            f"A training step on a GPU in float16: {asked}",
            plain_table(["", unit], training, numbers=1),
        ]
    )
