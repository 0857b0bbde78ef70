"""Pages that say why, one for each picture: `dynrefer predict --explain`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lavis_dynrefer.cli.predict_output import file_stem
from lavis_dynrefer.explain import explain
from lavis_dynrefer.explain_page import MOST_REGIONS, explanation_page
from lavis_dynrefer.inputs.pictures import open_picture
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.results import PictureResult

EXPLAINED = "explain"
logger = logging.getLogger(__name__)


def explain_results(
    results: Iterable[PictureResult],
    folder: Path,
    *,
    predictor: Callable[[], RegionPredictor],
    questions: Mapping[str, Any],
    anew: Collection[str],
) -> Iterator[tuple[str, str | None]]:
    """Write the page of each picture into `folder`, or leave a page that is there.

    Args:
        results: pictures and regions to explain.
        folder: where to; made if need be.
        predictor: gives what the answers come from; called only if a page is missing.
        questions: those of the answers, as for `RegionPredictor.predict_iter`.
        anew: names of pictures to explain even if there is a page.

    Yields:
        Name of a picture, and why it could not be explained, or None.
    """
    folder.mkdir(exist_ok=True)
    for result in results:
        path = folder / f"{file_stem(result.picture)}.html"
        reason = None
        if result.picture in anew or not path.exists():
            try:
                page = _page(result, predictor(), questions)
            except Exception as error:  # whatever is wrong with one picture is not the others'
                logger.debug("%s", result.path, exc_info=True)
                reason = f"cannot be explained: {error}"
            else:
                unfinished = path.with_suffix(".part")  # a page that is there is complete
                unfinished.write_text(page, encoding="utf-8")
                unfinished.replace(path)
        yield result.picture, reason


def _page(result: PictureResult, predictor: RegionPredictor, questions: Mapping[str, Any]) -> str:
    picture = open_picture(result.path)
    boxes = [region.box for region in result.regions]
    explanations = explain(predictor, picture, boxes[:MOST_REGIONS], normalised=False, **questions)
    left_out = len(boxes[MOST_REGIONS:])
    return explanation_page(picture, explanations, name=result.picture, left_out=left_out)
