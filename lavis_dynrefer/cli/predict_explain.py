"""Pages that say why, one for each picture: `dynrefer predict --explain`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lavis_dynrefer.cli.predict_output import file_of_each
from lavis_dynrefer.explain import explain
from lavis_dynrefer.explain_page import MOST_REGIONS, explanation_page
from lavis_dynrefer.inputs.pictures import open_picture
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.results import PictureResult

EXPLAINED = "explain"


def explain_results(
    results: Iterable[PictureResult],
    folder: Path,
    *,
    predictor: Callable[[], RegionPredictor],
    questions: Mapping[str, Any],
    anew: Collection[str],
) -> Iterator[tuple[str, str | None]]:
    """Write the page of each picture into `folder`; see `file_of_each`.

    Args:
        results: pictures and regions to explain.
        folder: where to.
        predictor: gives what the answers come from; called only if a page is missing.
        questions: those of the answers, as for `RegionPredictor.predict_iter`.
        anew: names of pictures to explain even if there is a page.
    """

    def write(result: PictureResult, path: Path) -> None:
        path.write_text(_page(result, predictor(), questions), encoding="utf-8")

    return file_of_each(results, folder, ".html", write, cannot="cannot be explained", anew=anew)


def _page(result: PictureResult, predictor: RegionPredictor, questions: Mapping[str, Any]) -> str:
    picture = open_picture(result.path)
    boxes = [region.box for region in result.regions]
    explanations = explain(predictor, picture, boxes[:MOST_REGIONS], normalised=False, **questions)
    left_out = len(boxes[MOST_REGIONS:])
    return explanation_page(picture, explanations, name=result.picture, left_out=left_out)
