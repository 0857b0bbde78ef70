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
    OWN_POLICY,
    WORD_FIELDS,
    board,
    read_image,
    read_question,
)
from lavis_dynrefer.demo.page_guard import PageGuard
from lavis_dynrefer.errors import DynReferError
from lavis_dynrefer.explain.explanation import explain
from lavis_dynrefer.models.answering import EncodedRegions
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.serve import ServeSettings

logger = logging.getLogger(__name__)

TITLE = "What is in the box? · DynRefer"
_KEEP_FILES = 3600  # seconds that uploaded images stay on the disk
_KEEP_ENCODED = 4  # questions whose encoded regions stay in memory
_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
_PICK = """
element.addEventListener("click", event => {
  const button = event.target.closest("[data-example]");
  if (button) trigger("click", {example: Number(button.dataset.example)});
});
"""


def _or_notice(answer: Callable[..., str]) -> Callable[..., str]:
    """Answers, or a notice that says what is wrong; the page stays usable either way."""

    @wraps(answer)
    def answered(*arguments: Any) -> str:
        try:
            return answer(*arguments)
        except DynReferError as error:
            return page_texts.notice(str(error))
        except Exception:
            logger.exception("no answer")
            return page_texts.notice("The server failed, not you; its log says why.")

    return answered


class Answers:
    """What the page's buttons do; gradio calls it for one visitor at a time.

    The regions asked about last stay encoded: if only words change, nothing is encoded again.

    Args:
        predictor: answers.
        limits: of a question.
    """

    def __init__(self, predictor: RegionPredictor, limits: ServeSettings) -> None:
        self._predictor = predictor
        self._limits = limits
        self._encoded: dict[Hashable, EncodedRegions] = {}  # the last used is last

    @_or_notice
    def boxes(self, drawing: Mapping[str, Any] | None, *typed: str | None) -> str:
        """Describe the boxes drawn; `typed` as `_fields` lists them."""
        return self._answer(drawing, typed, whole=False)

    @_or_notice
    def whole(self, drawing: Mapping[str, Any] | None, *typed: str | None) -> str:
        """Describe the whole image."""
        return self._answer(drawing, typed, whole=True)

    @_or_notice
    def uploaded(self, drawing: Mapping[str, Any] | None) -> str:
        """Say at once whether an image can be used."""
        read_image(drawing or {}, self._limits)
        return page_texts.welcome()

    def _answer(
        self, drawing: Mapping[str, Any] | None, typed: Sequence[str | None], *, whole: bool
    ) -> str:
        texts = {name: text or "" for name, text in zip((*WORD_FIELDS, "views"), typed)}
        asked = read_question(drawing, texts, self._limits, whole=whole)
        encoded = self._encoded.pop(asked.key, None)
        if encoded is None:
            encoded = self._predictor.encode(
                asked.image, asked.boxes, normalised=False, views=asked.questions.views
            )
        self._encoded[asked.key] = encoded
        while len(self._encoded) > _KEEP_ENCODED:
            del self._encoded[next(iter(self._encoded))]
        explanations = explain(self._predictor, encoded, questions=asked.questions)
        return page_texts.answers(asked.image, explanations, asked.colours)


def create_app(
    predictor: RegionPredictor, *, folder: Path, name: str = "tiny", settings: ServeSettings
) -> FastAPI:
    """The page as an ASGI application.

    Args:
        predictor: answers; shared by all visitors.
        folder: the example images are written there.
        name: of the model, as the page shows it.
        settings: limits; max_body, max_pixels, max_boxes, max_words, max_word_length and max_queue
            are used.
    """
    folder = folder.resolve()
    images = write_examples(folder)
    blocks = build_page(predictor, images, name=name, settings=settings)
    app = FastAPI(openapi_url=None)
    app.add_middleware(PageGuard, folders=[Path(get_upload_folder()), folder])
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
        css=page_texts.style(),
    )
    return mounted


def build_page(
    predictor: RegionPredictor,
    images: Sequence[Example],
    *,
    name: str,
    settings: ServeSettings,
) -> gr.Blocks:
    """The page's components and events."""
    answers = Answers(predictor, settings)
    blocks: gr.Blocks
    with gr.Blocks(
        title=TITLE,
        analytics_enabled=False,
        delete_cache=(_KEEP_FILES, _KEEP_FILES),
        fill_width=True,
    ) as blocks:
        gr.HTML(page_texts.head(predictor, name))
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
                result = gr.HTML(page_texts.welcome(), elem_id="result")
        asked: dict[str, Any] = {
            "inputs": [drawing, *fields],
            "outputs": result,
            "preprocess": False,  # we read the values ourselves, so that mistakes become notices
            "concurrency_id": "model",
            "api_visibility": "private",
        }

        def pick(event: gr.EventData) -> dict[str, Any]:
            chosen = images[event.example]
            return board(str(chosen.path), chosen.boxes)

        ask.click(answers.boxes, **asked)
        ask_whole.click(answers.whole, **asked)
        picked = examples.click(pick, None, drawing, api_visibility="private")
        picked.then(answers.boxes, **asked)
        drawing.clear(page_texts.welcome, None, result, api_visibility="private")
        drawing.upload(
            answers.uploaded, drawing, result, preprocess=False, api_visibility="private"
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
    """Inputs for `WORD_FIELDS`, in its order, and for the view policy."""
    model = predictor.model
    texts = (
        ("Attributes to score", _own(len(model.attributes), "striped, wet")),
        ("Categories to choose from", _own(len(model.categories), "house, boat")),
        ("Tags to find", _own(len(model.tagging.tags), "mug, table")),
        ("Control words for captions", "red, boat"),
    )
    with gr.Group(), gr.Row():
        words = [
            gr.Textbox(label=label, placeholder=example, min_width=200, elem_id=name)
            for name, (label, example) in zip(WORD_FIELDS, texts)
        ]
        views = gr.Dropdown(
            _policies(model.region_encoder.num_views),
            value=OWN_POLICY,
            label="How views are chosen",
            allow_custom_value=True,
            min_width=200,
            elem_id="views",
        )
    return [*words, views]


def _own(count: int, such_as: str) -> str:
    return f"its own {count:,}, or: {such_as}" if count else such_as


def _policies(num_views: int) -> list[tuple[str, str]]:
    steps = [f"{step / max(num_views - 1, 1):.2g}" for step in range(num_views)]
    fixed = "fixed:" + ",".join(["0", "0.5"] if num_views == 2 else steps)
    return [
        ("as the model is set up", OWN_POLICY),
        ("by content (image)", "image"),
        ("by question (task)", "task"),
        (f"always the same ({fixed})", fixed),
    ]
