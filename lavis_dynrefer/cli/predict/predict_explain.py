"""Pages that say why, one for each image: `dynrefer predict --explain`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lavis_dynrefer.cli.predict.predict_output import file_of_each
from lavis_dynrefer.explain.explain_page import MOST_REGIONS, explanation_page
from lavis_dynrefer.explain.explanation import explain
from lavis_dynrefer.formats import ImageResult
from lavis_dynrefer.images.opening import open_image
from lavis_dynrefer.predictor import RegionPredictor

EXPLAINED = "explain"


def explain_results(
    results: Iterable[ImageResult],
    folder: Path,
    *,
    predictor: Callable[[], RegionPredictor],
    questions: Mapping[str, Any],
    anew: Collection[str],
) -> Iterator[tuple[str, str | None]]:
    """Write the page of each image into `folder`; see `file_of_each`.

    Args:
        results: images and regions to explain.
        folder: where to.
        predictor: gives what the answers come from; called only if a page is missing.
        questions: those of the answers, as for `RegionPredictor.predict_iter`.
        anew: names of images to explain even if there is a page.
    """

    def write(result: ImageResult, path: Path) -> None:
        path.write_text(_page(result, predictor(), questions), encoding="utf-8")

    return file_of_each(results, folder, ".html", write, cannot="cannot be explained", anew=anew)


def _page(result: ImageResult, predictor: RegionPredictor, questions: Mapping[str, Any]) -> str:
    image = open_image(result.path)
    boxes = [region.box for region in result.regions]
    explanations = explain(predictor, image, boxes[:MOST_REGIONS], normalised=False, **questions)
    left_out = len(boxes[MOST_REGIONS:])
    return explanation_page(image, explanations, name=result.image, left_out=left_out)
