"""What a model consists of, where its files are, and what it takes in memory."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis_dynrefer.config import LAVIS_KEYS
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.lab.info_command import FORMATS

CAPTIONS = {  # to train on
    "short captions": "a red house left of a green tree",
    "longest captions": "a " * 100,  # cut off at the model's max_text_length
}
_RELEASED_TAGS = 4585  # where the tag list is not here


def print_tables(arguments: argparse.Namespace) -> None:
    """Print the tables, each as soon as it is known, or all of it as json."""
    report: dict[str, Any] = {}
    for name, found in describe(
        arguments.model,
        checkpoint=arguments.checkpoint,
        batch=arguments.batch,
        beams=arguments.beams,
        views=arguments.views,
        tokens=arguments.tokens,
        rows=[arguments.dtype] if arguments.dtype else FORMATS,
    ):
        report[name] = found
        if not arguments.json and name in _TEXTS:  # the memory takes a while
            print(_TEXTS[name](report), flush=True)
    if arguments.json:
        print(json.dumps(report, indent=2))


def describe(
    name: str,
    *,
    checkpoint: str | None = None,
    batch: int = 64,
    beams: int | None = None,
    views: int | None = None,
    tokens: int | None = None,
    rows: tuple[str, ...] | list[str] = FORMATS,
) -> Iterator[tuple[str, Any]]:
    """Parts, files and memory of a model, one after the other as they are known; sizes in bytes.

    Args:
        name: type of the model, or a yaml.
        checkpoint: a DynRefer checkpoint.
        batch: regions at once.
        beams: of the beam search.
        views: of a region.
        tokens: at most in a caption that is written.
        rows: number formats, some of `FORMATS`.

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

        beams = beams or config.captioning.generation.num_beams
        yield "model", name
        yield "parts", memory_table.parts_of(model_of_section(own))
        yield "files", files
        yield "asked", {"regions": batch, "views": config.region.num_views, "beams": beams}
        answers = {}
        for row in rows:
            answers[row] = memory_table.answer_memory(
                own, batch=batch, beams=beams, tokens=tokens, row=row
            )
        yield "answers", answers
        training = {}
        for title, caption in CAPTIONS.items():
            training[title] = memory_table.training_memory(own, batch=batch, caption=caption)
        yield "training", training


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


def _parts_text(report: Mapping[str, Any]) -> str:
    columns = ("parameters", "trained", "stored")
    unit, scale = _unit(sum(row["stored"] for row in report["parts"].values()))
    rows = [
        [name, *(f"{row[key] / 1e6:,.1f}" for key in columns[:2]), f"{row['stored'] / scale:.2f}"]
        for name, row in report["parts"].items()
    ]
    title = f"{report['model']}: parameters in millions, stored size in {unit}"
    return f"{title}\n{_table(['part', *columns], rows)}"


def _files_text(report: Mapping[str, Any]) -> str:
    files = "".join(f"  {name}: {place}\n" for name, place in report["files"].items())
    return f"Files:\n{files}"


def _answers_text(report: Mapping[str, Any]) -> str:
    asked, answers = report["asked"], report["answers"]
    unit, scale = _unit(max(row["peak"] for row in answers.values()))
    columns = list(next(iter(answers.values())))
    rows = [
        [name, *(f"{size / scale:.2f}" for size in row.values())] for name, row in answers.items()
    ]
    question = f"{asked['regions']} regions with {asked['views']} views, {asked['beams']} beams"
    title = f"Answers on a GPU: {question}; peak of each stage in {unit}"
    return f"{title}\n{_table(['number formats', *columns], rows)}"


def _training_text(report: Mapping[str, Any]) -> str:
    asked, steps = report["asked"], report["training"]
    unit, scale = _unit(max(step["peak"] for step in steps.values()))
    names = next(iter(steps.values()))
    rows = [[name, *(f"{step[name] / scale:.2f}" for step in steps.values())] for name in names]
    question = f"{asked['regions']} regions with {asked['views']} views"
    title = f"A training step on a GPU in float16: {question}; {unit}"
    return f"{title}\n{_table(['', *steps], rows)}"


def _unit(largest: int) -> tuple[str, int]:
    return ("GiB", 2**30) if largest >= 2**30 else ("MiB", 2**20)


def _table(head: Sequence[str], rows: list[list[str]]) -> str:
    from lavis_dynrefer.metrics import plain_table

    return plain_table(head, rows, numbers=len(head) - 1)


_TEXTS = {
    "parts": _parts_text,
    "files": _files_text,
    "answers": _answers_text,
    "training": _training_text,
}
