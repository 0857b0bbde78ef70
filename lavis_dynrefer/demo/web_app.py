"""The page as a web application."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from gradio.utils import get_upload_folder
from gradio_image_annotation import image_annotator

from lavis_dynrefer.demo import page_texts
from lavis_dynrefer.demo.example_scenes import Example, write_examples
from lavis_dynrefer.demo.form_reading import (
    FIELDS,
    OWN,
    board,
    chosen_option,
    read_image,
    read_question,
)
from lavis_dynrefer.demo.page_guard import PageGuard
from lavis_dynrefer.errors import DynReferError
from lavis_dynrefer.explain.explanation import explain
from lavis_dynrefer.models.answering import EncodedRegions
from lavis_dynrefer.models.choosing.scale_choice import usable_policies
from lavis_dynrefer.models.device_errors import device_loss, forget_frames
from lavis_dynrefer.pages.html_page import page_template
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.serve import ServeSettings

logger = logging.getLogger(__name__)

TITLE = "What is in the box? · DynRefer"
_KEEP_FILES = 3600  # seconds that uploaded images stay on the disk
_KEEP_ENCODED = 4  # questions whose encoded regions stay in memory
_CHOSEN = {
    **{"image": "by content", "task": "by question", "random": "at random"},
    **{"confidence": "by the likeliest caption", "learned": "by what was learned"},
}
_MASK_USES = (
    ("their boxes alone", "box"),
    ("weights of the region's cells", "cells"),
    ("to dim what lies outside", "dim"),
)
_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
_PICK = """
element.addEventListener("click", event => {
  const button = event.target.closest("[data-example]");
  if (button) trigger("click", {example: Number(button.dataset.example)});
});
"""


def _or_notice(answer: Callable[..., str]) -> Callable[..., str]:
    """Show errors as a notice; the page stays usable, unless the device is lost."""

    @wraps(answer)
    def answered(answers: Answers, *arguments: Any) -> str:
        message = answers.failure
        if message is None:
            try:
                return answer(answers, *arguments)
            except DynReferError as error:
                message = str(error)
            except Exception as error:
                logger.exception("no answer")
                answers.failure = device_loss(error)
                message = answers.failure or "Internal error; see the server log."
                forget_frames(error)
        return page_texts.render_part("notice", message=message)

    return answered


class Answers:
    """The actions of the page's buttons; gradio calls them for one visitor at a time.

    `failure` tells why nothing can be answered any more: the device is lost; None while all is
    well. The last regions stay encoded: if only words change, nothing is encoded again.

    Args:
        predictor: answers.
        limits: of a question.
    """

    def __init__(self, predictor: RegionPredictor, limits: ServeSettings) -> None:
        self._predictor = predictor
        self._limits = limits
        self._encoded: dict[Hashable, EncodedRegions] = {}  # the last used is last
        self.failure: str | None = None

    @_or_notice
    def boxes(self, drawing: Mapping[str, Any] | None, *typed: str | None) -> str:
        """Describe the boxes; `typed` has the text of each of `FIELDS`."""
        return self._answer(drawing, typed, whole=False)

    @_or_notice
    def whole(self, drawing: Mapping[str, Any] | None, *typed: str | None) -> str:
        """Describe the whole image."""
        return self._answer(drawing, typed, whole=True)

    @_or_notice
    def uploaded(self, drawing: Mapping[str, Any] | None) -> str:
        """Say at once whether an image can be used."""
        read_image(drawing, self._limits)
        return page_texts.render_part("welcome")

    def _answer(
        self, drawing: Mapping[str, Any] | None, typed: Sequence[str | None], *, whole: bool
    ) -> str:
        texts = {field.name: text for field, text in zip(FIELDS, typed)}
        question = read_question(drawing, texts, self._limits, whole=whole)
        encoded = self._encoded.pop(question.key, None)
        if encoded is None:
            encoded = self._predictor.encode(
                question.image,
                question.boxes,
                masks=question.masks,
                normalised=None if question.boxes is None else False,
                views=question.questions.views,
                masks_as=question.questions.masks_as,
            )
        self._encoded[question.key] = encoded
        while len(self._encoded) > _KEEP_ENCODED:
            del self._encoded[next(iter(self._encoded))]
        explanations = explain(self._predictor, encoded, questions=question.questions)
        return page_texts.answers(question.image, explanations, question.colours)


def create_app(
    predictor: RegionPredictor, *, folder: Path, name: str = "tiny", settings: ServeSettings
) -> FastAPI:
    """The page as an ASGI application; `app.state.answers` is its `Answers`.

    Args:
        predictor: answers; shared by all visitors.
        folder: the example images are written there.
        name: of the model, as the page shows it.
        settings: limits; max_body, max_pixels, max_boxes, max_words, max_word_length and max_queue
            are used.
    """
    folder = folder.resolve()
    images = write_examples(folder)
    answers = Answers(predictor, settings)
    blocks = build_page(answers, predictor, images, name=name, settings=settings)
    app = FastAPI(openapi_url=None)
    app.state.answers = answers
    app.add_middleware(
        PageGuard,
        folders=[Path(get_upload_folder()), folder],
        events={
            number: [getattr(one, "data_model", None) for one in event.inputs]
            for number, event in blocks.fns.items()
        },
        max_body=settings.max_body,
    )
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        max_file_size=settings.max_body,
        allowed_paths=[str(folder)],
        footer_links=[],
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        theme=_theme(),
        css=page_template("demo.css").render(),
    )
    return mounted


def build_page(
    answers: Answers,
    predictor: RegionPredictor,
    images: Sequence[Example],
    *,
    name: str,
    settings: ServeSettings,
) -> gr.Blocks:
    """The page's components and events."""
    blocks: gr.Blocks
    with gr.Blocks(
        title=TITLE,
        analytics_enabled=False,
        delete_cache=(_KEEP_FILES, _KEEP_FILES),
        fill_width=True,
    ) as blocks:
        device = predictor.device.type
        gr.HTML(page_texts.render_part("head", model=name, device=device, tiny=name == "tiny"))
        with gr.Row():
            with gr.Column(scale=5, min_width=360, elem_id="ask"):
                drawing = _board(images[0])
                examples = gr.HTML(page_texts.examples(images), js_on_load=_PICK)
                with gr.Row(elem_id="buttons"):
                    ask = gr.Button(
                        "Describe the boxes", variant="primary", min_width=160, elem_id="describe"
                    )
                    ask_whole = gr.Button(
                        "Describe the whole image", min_width=160, elem_id="describe-whole"
                    )
                fields = _fields(predictor)
            with gr.Column(scale=6, min_width=360):
                result = gr.HTML(page_texts.render_part("welcome"), elem_id="result")
        event: dict[str, Any] = {
            "inputs": [drawing, *fields],
            "outputs": result,
            "preprocess": False,  # we read the values ourselves, so that errors become notices
            "concurrency_id": "model",
            "api_visibility": "private",
        }

        masks = fields[[field.name for field in FIELDS].index("masks")]

        def pick(click: gr.EventData) -> tuple[dict[str, Any], str]:
            chosen = (click._data or {}).get("example")  # `click.example` fails without any data
            if type(chosen) is not int or not 0 <= chosen < len(images):
                text = f"There is no example {chosen!r:.20}."
                raise gr.Error(text, print_exception=False)
            return board(str(images[chosen].path), images[chosen].boxes), ""

        def clear() -> tuple[str, str]:
            return page_texts.render_part("welcome"), ""

        def uploaded(drawing: Mapping[str, Any] | None) -> tuple[str, str]:
            return answers.uploaded(drawing), ""

        ask.click(answers.boxes, **event)
        ask_whole.click(answers.whole, **event)
        # Masks belong to one image.
        picked = examples.click(pick, None, [drawing, masks], api_visibility="private")
        picked.then(answers.boxes, **event)
        drawing.clear(clear, None, [result, masks], api_visibility="private")
        drawing.upload(
            uploaded, drawing, [result, masks], preprocess=False, api_visibility="private"
        )
    blocks.queue(max_size=settings.max_queue, api_open=False)
    return blocks


def _theme() -> gr.themes.Base:
    """The colours of the explanation pages; the fonts are the visitor's own."""
    theme = gr.themes.Base(
        font=_FONTS, font_mono=["ui-monospace", "monospace"], neutral_hue="slate", radius_size="md"
    )
    return theme.set(
        body_background_fill="#f5f6f8",
        body_background_fill_dark="#12151a",
        body_text_color_subdued="#5d6675",
        body_text_color_subdued_dark="#9aa4b5",
        block_background_fill="#ffffff",
        block_background_fill_dark="#1b1f26",
        button_primary_background_fill="#2f6fde",
        button_primary_background_fill_hover="#245fc6",
        button_primary_background_fill_dark="#2f6fde",
        button_primary_background_fill_hover_dark="#4a84e8",
        button_large_text_size="15px",
    )


def _board(first: Example) -> image_annotator:
    return image_annotator(
        board(str(first.path)),
        label="Image",
        show_label=False,
        sources=["upload", "clipboard"],
        disable_edit_boxes=True,  # boxes have no names here
        show_remove_button=True,
        show_download_button=False,
        show_share_button=False,
        boxes_alpha=0.12,
        box_min_size=4,
        elem_id="board",
    )


def _fields(predictor: RegionPredictor) -> list[gr.components.Component]:
    """One component for each of `FIELDS`."""
    model = predictor.model
    own = {
        "attributes": len(model.attributes),
        "categories": len(model.categories),
        "tags": len(model.tagging.tags),
    }
    fields: list[gr.components.Component] = []
    choices = {
        "views": _policies(model.region_encoder.num_views, usable_policies(model)),
        "masks_as": [("what the model was trained for", OWN), *_MASK_USES],
    }
    with gr.Group(), gr.Row():
        for field in FIELDS:
            shared: dict[str, Any] = {
                "label": field.label,
                "min_width": 200,
                "elem_id": field.name,
            }
            if field.read is chosen_option:
                chooser = gr.Dropdown(
                    choices[field.name], value=OWN, allow_custom_value=True, **shared
                )
                fields.append(chooser)
                continue
            count = own.get(field.name)
            example = f"its own {count:,}, or: {field.example}" if count else field.example
            fields.append(gr.Textbox(placeholder=example, **shared))
    return fields


def _policies(num_views: int, names: Sequence[str]) -> list[tuple[str, str]]:
    steps = [f"{step / max(num_views - 1, 1):.2g}" for step in range(num_views)]
    fixed = "fixed:" + ",".join(["0", "0.5"] if num_views == 2 else steps)
    return [
        ("as the model is set up", OWN),
        *((f"{_CHOSEN.get(name, name)} ({name})", name) for name in names if name != "fixed"),
        (f"always the same ({fixed})", fixed),
    ]
