"""What a report shows, section by section."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageDraw

from lavis_dynrefer.errors import DynReferError
from lavis_dynrefer.images import open_image
from lavis_dynrefer.pages.html_page import data_url, number
from lavis_dynrefer.pages.region_drawing import visible_box
from lavis_dynrefer.report.answer_plots import attribute_plot, calibration_plot, confusion_plot
from lavis_dynrefer.report.caption_plots import caption_plot
from lavis_dynrefer.report.plot_style import Plot
from lavis_dynrefer.report.predicted_folder import name_plot
from lavis_dynrefer.report.reliability_plots import read_calibration, reliability_plot
from lavis_dynrefer.report.run_answers import (
    AnsweredSplit,
    RegionExample,
    read_answers,
    score_captions,
)
from lavis_dynrefer.report.run_comparison import (
    comparison_plot,
    differing_settings,
    last_reports,
    metric_table,
    shown_metrics,
)
from lavis_dynrefer.report.run_folder import RunFolder
from lavis_dynrefer.report.training_curves import training_plots, validation_plots

_CONFUSIONS = 8  # named, with an example each
_EXAMPLES = 6  # captions of each kind
_CROP_SIDE, _CROP_BYTES = 220, 12_000
_CONTEXT = 0.3  # of the box, around it
_FRAME = "#d55e00"


@dataclass(frozen=True)
class Table:
    """Rows under heads; `numbers` columns, the last ones, are aligned on the right."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Any]]
    numbers: int = 0
    folded: bool = False


@dataclass(frozen=True)
class Card:
    """A region: its crop as a data URL, empty without the image; what is said of it."""

    crop: str
    alt: str
    lines: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Cards:
    """Regions side by side."""

    title: str
    cards: Sequence[Card]


@dataclass
class Section:
    """A part of the page.

    Args:
        name: of its anchor.
        title: above it.
        parts: `Plot`, `Table` or `Cards`.
        remarks: what cannot be drawn, and why.
    """

    name: str
    title: str
    parts: list[Any] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def sections(runs: Sequence[RunFolder], options: Sequence[str] = ()) -> Iterator[Section]:
    """Those for which the runs have something."""
    overview = Section("overview", "Overview" if len(runs) == 1 else "Comparison")
    plot = comparison_plot(runs)
    overview.parts = [*([plot] if plot else []), *_comparison_tables(runs)]
    training = Section("training", "Training", list(training_plots(runs)))
    validation = Section("validation", "Validation", list(validation_plots(runs)))
    yield from (one for one in (overview, training, validation) if one.parts)
    probabilities = _probabilities(runs)
    if probabilities.parts or probabilities.remarks:
        yield probabilities
    for split in dict.fromkeys(split for run in runs for split in run.answers):
        yield _answers(runs, split, options)


def predicted_sections(read: Mapping[str, AnsweredSplit]) -> Iterator[Section]:
    """Those of folders of `dynrefer predict`: folder -> its answers."""
    names = Section("names", "Names")
    names.parts = [plot for task in ("categories", "tags") if (plot := name_plot(read, task))]
    if names.parts:
        yield names
    section = _drawn(Section("answers", "Answers"), read)
    if section.parts or section.remarks:
        yield section


def _probabilities(runs: Sequence[RunFolder]) -> Section:
    """Reliability of the runs that are calibrated."""
    section = Section("probabilities", "Probabilities")
    for run in runs:
        try:
            found = read_calibration(run.path)
        except DynReferError as error:
            section.remarks.append(f"Not drawn: {error}")
            continue
        if found is not None and found["kinds"]:
            of = f": {run.label}" if len(runs) > 1 else ""
            plot = reliability_plot(found, title=f"Are the probabilities right?{of}")
            section.parts.append(plot)
    return section


def _comparison_tables(runs: Sequence[RunFolder]) -> Iterator[Table]:
    changed = differing_settings(runs)
    if len(runs) > 1 and changed:
        yield Table(
            "Settings that differ",
            ("setting", *(run.label for run in runs)),
            [(key, *values) for key, values in changed],
        )
    rows = metric_table(runs)
    main = {
        name for run in runs for one in last_reports(run).values() for name in shown_metrics(one)
    }
    heads = [run.label if len(runs) > 1 else "value" for run in runs]
    heads[1:] = [f"{label} (difference)" for label in heads[1:]]
    for title, folded, shown in (
        ("Main metrics, percent", False, [row for row in rows if row[1] in main]),
        ("All metrics, percent", True, rows),
    ):
        if shown and (folded or len(runs) > 1):
            yield Table(
                title,
                ("split, protocol and mode", "metric", *heads),
                [(where, name, *_with_differences(values)) for where, name, values in shown],
                numbers=len(runs),
                folded=folded,
            )
    counts = [
        (run.label, split, report["epoch"], name, f"{count:,}")
        for run in runs
        for split, report in last_reports(run).items()
        for name, count in report["counts"].items()
    ]
    if counts:
        yield Table(
            "What was graded",
            ("run", "split", "epoch", "count", "value"),
            counts,
            numbers=1,
            folded=True,
        )


def _with_differences(values: Sequence[float | None]) -> list[str]:
    first = values[0]
    cells = ["" if first is None else number(first)]
    for value in values[1:]:
        if value is None:
            cells.append("")
        elif first is None:
            cells.append(number(value))
        else:
            cells.append(f"{number(value)} ({number(value - first, sign=True)})")
    return cells


def _answers(runs: Sequence[RunFolder], split: str, options: Sequence[str]) -> Section:
    section = Section(f"split-{split}", f"Answers: {split}")
    read: dict[str, AnsweredSplit] = {}
    for run in runs:
        if split not in run.answers:
            continue
        try:
            read[run.label] = read_answers(run, split, options)
        except DynReferError as error:
            section.remarks.append(
                f"{run.label}: the answers are not drawn, because {error}. If the annotations have "
                "moved, name their place: --options datasets.NAME.build_info.root=FOLDER"
            )
    return _drawn(section, read)


def _drawn(section: Section, read: Mapping[str, AnsweredSplit]) -> Section:
    """The section with what can be drawn of the answers."""
    for draw in (_attributes, _categories, _captions):
        try:
            for part in draw(read):
                section.parts.append(part)
        except DynReferError as error:
            section.remarks.append(f"Not drawn: {error}")
    return section


def _attributes(read: Mapping[str, AnsweredSplit]) -> list[Plot]:
    scores = {label: one.attributes for label, one in read.items()}
    found = {  # without a region that has any of them, there is nothing to draw
        label: one for label, one in scores.items() if one is not None and one.positives.any()
    }
    names = {tuple(one.names) for one in found.values()}
    if len(names) == 1:
        return [attribute_plot(found), calibration_plot(found)]
    plots = [
        (
            attribute_plot({label: one}, title=f"Average precision of each attribute: {label}"),
            calibration_plot({label: one}),
        )
        for label, one in found.items()
    ]
    return [plot for pair in plots for plot in pair]


def _categories(read: Mapping[str, AnsweredSplit]) -> Iterator[Any]:
    for label, one in read.items():
        confusions = one.confusions
        if confusions is None:
            continue
        of = f": {label}" if len(read) > 1 else ""
        yield confusion_plot(confusions, title=f"Which category is named for which{of}")
        top = confusions.top(_CONFUSIONS)
        cards = [
            _card(
                confusions.examples[truth, named][0],
                [
                    ("annotated", truth),
                    ("named", named),
                    ("", f"{count:,} {_regions(count)}, {share:.0%} of {truth}"),
                ],
            )
            for truth, named, count, share in top
        ]
        if cards:
            yield Cards(f"The most frequent confusions, a region each{of}", cards)


def _captions(read: Mapping[str, AnsweredSplit]) -> Iterator[Any]:
    captions = {label: one.captions for label, one in read.items() if one.captions}
    if not captions:
        return
    problem: DynReferError | None = None
    meteor: dict[str, Any] = {}
    try:
        meteor = score_captions({label: read[label] for label in captions})
    except DynReferError as error:
        problem = error
    yield caption_plot(captions, meteor)
    for label in captions:
        of = f": {label}" if len(captions) > 1 else ""
        graded = sorted(meteor.get(label, ()), key=lambda pair: pair[1])
        by_probability = sorted(captions[label], key=lambda one: one.number)
        shown = {
            "Captions unlike their annotation, by METEOR": graded[:_EXAMPLES],
            "Captions most like their annotation": graded[::-1][:_EXAMPLES],
        }
        if not graded:
            shown = {
                "Least probable captions": [(one, None) for one in by_probability[:_EXAMPLES]],
                "Most probable captions": [(one, None) for one in by_probability[::-1][:_EXAMPLES]],
            }
        for title, chosen in shown.items():
            cards = [_caption_card(one, score) for one, score in chosen]
            if cards:
                yield Cards(f"{title}{of}", cards)
    if problem is not None:
        raise problem


def _regions(count: int) -> str:
    return "region" if count == 1 else "regions"


def _caption_card(one: RegionExample, meteor: float | None) -> Card:
    probability = f"probability {one.number:.2g}"
    score = probability if meteor is None else f"METEOR {meteor:.0f}, {probability}"
    truth = [("annotated", one.truth)] if one.truth else []
    return _card(one, [("", one.answer or "(empty)"), *truth, ("", score)])


def _card(one: RegionExample, lines: Sequence[tuple[str, str]]) -> Card:
    return Card(_crop(one), f"region {one.region_id}: {one.answer}", lines)


def _crop(one: RegionExample) -> str:
    """The region with some of what is around it; empty if the image cannot be read."""
    try:
        image = open_image(one.image)
    except DynReferError:
        return ""
    box = visible_box(one.box, image.size)
    if box is None:
        return ""
    x1, y1, x2, y2 = box
    around = _CONTEXT * max(x2 - x1, y2 - y1)
    left, top = max(x1 - around, 0), max(y1 - around, 0)
    right, bottom = min(x2 + around, image.width), min(y2 + around, image.height)
    crop = image.crop((round(left), round(top), round(right), round(bottom)))
    factor = _CROP_SIDE / max(crop.size)
    size = (max(round(crop.width * factor), 1), max(round(crop.height * factor), 1))
    crop = crop.resize(size, Image.Resampling.BICUBIC)
    frame = [(x1 - left) * factor, (y1 - top) * factor, (x2 - left) * factor, (y2 - top) * factor]
    ImageDraw.Draw(crop).rectangle(frame, outline=_FRAME, width=2)
    return data_url(crop, max_bytes=_CROP_BYTES)
