"""The page as a web application."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from gradio.utils import get_upload_folder
from gradio_image_annotation import image_annotator

from lavis_dynrefer.demo import page_texts
from lavis_dynrefer.demo.examples import Example, write_examples
from lavis_dynrefer.demo.form_reading import OWN_POLICY, Fields, board, read_image, read_work
from lavis_dynrefer.demo.web_server import StayHere
from lavis_dynrefer.explain.explanation import explain
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.serve import ServeSettings
from lavis_dynrefer.serve.errors import RequestError
from lavis_dynrefer.serve.work import WorkReader

logger = logging.getLogger(__name__)

TITLE = "What is in the box? · DynRefer"
_KEEP = 3600  # seconds that images stay on the disk
_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
_PICK = """
element.addEventListener("click", event => {
  const button = event.target.closest("[data-example]");
  if (button) trigger("click", {example: Number(button.dataset.example)});
});
"""


class Answers:
    """What the page's buttons do.

    Args:
        predictor: answers.
        settings: limits of a question.
    """

    def __init__(self, predictor: RegionPredictor, settings: ServeSettings) -> None:
        self._predictor = predictor
        num_views = predictor.model.region_encoder.num_views
        self._reader = WorkReader(settings, num_views=num_views)

    def boxes(self, drawing: Mapping[str, Any] | None, *fields: str) -> str:
        """Describe the boxes drawn."""
        return self._answer(drawing, fields, whole=False)

    def whole(self, drawing: Mapping[str, Any] | None, *fields: str) -> str:
        """Describe the whole image."""
        return self._answer(drawing, fields, whole=True)

    def uploaded(self, drawing: Mapping[str, Any] | None) -> str:
        """Say at once whether an image can be used."""

        def look() -> str:
            limits = self._reader.settings
            read_image(drawing or {}, limits.max_body, limits.max_pixels)
            return page_texts.welcome()

        return _or_notice(look)

    def _answer(
        self, drawing: Mapping[str, Any] | None, fields: tuple[str, ...], *, whole: bool
    ) -> str:
        def ask() -> str:
            typed = Fields(*(field or "" for field in fields))
            work, colours = read_work(drawing, typed, self._reader, whole=whole)
            said = explain(
                self._predictor,
                work.image,
                work.boxes,
                normalised=False,
                **work.asked.arguments(),
            )
            return page_texts.answers(work.image, said, colours)

        return _or_notice(ask)


def create_app(
    predictor: RegionPredictor, *, folder: Path, name: str = "tiny", settings: ServeSettings
) -> FastAPI:
    """The page as an ASGI application.

    Args:
        predictor: answers; shared by all visitors.
        folder: where the example images are put.
        name: of the model, as the page shows it.
        settings: limits; max_body, max_pixels, max_boxes, max_words, max_word_length and max_queue
            count.
    """
    images = write_examples(folder)
    blocks = build_page(predictor, images, name=name, settings=settings)
    app = FastAPI(openapi_url=None)
    app.add_middleware(StayHere)
    return gr.mount_gradio_app(
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
        css=page_texts.STYLE,
    )


def build_page(
    predictor: RegionPredictor,
    images: Sequence[Example],
    *,
    name: str,
    settings: ServeSettings,
) -> gr.Blocks:
    """What is on the page, and what happens when a visitor does something."""
    answers = Answers(predictor, settings)
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, delete_cache=(_KEEP, _KEEP), fill_width=True
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
        folders = [Path(get_upload_folder()), *{one.path.parent for one in images}]
        for component in (drawing, *fields):
            _take_only_from(component, folders)
        asked = {
            "inputs": [drawing, *fields],
            "outputs": result,
            "preprocess": False,  # the values are read by us, so that mistakes become notices
            "concurrency_id": "model",
            "api_visibility": "private",
        }

        def pick(event: gr.EventData) -> dict[str, Any]:
            chosen = images[event._data["example"]]
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
    """Colours of the pages of `explain_page`; the fonts are the visitor's own."""
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


def _take_only_from(component: gr.components.Component, folders: Sequence[Path]) -> None:
    """Refuse files a visitor names that nobody uploaded.

    Gradio itself checks that only in pages it launches, not in mounted ones, and where a visitor
    puts an address in a file's place it would fetch it.
    """
    roots = [folder.resolve() for folder in folders]
    move = component.async_move_resource_to_block_cache

    async def move_uploaded(place: Any) -> str | None:
        if place is None:
            return None
        path = Path(place).resolve()
        if not any(root in path.parents for root in roots):
            raise gr.Error("this page reads and fetches nothing but what is uploaded to it")
        return await move(place)

    component.async_move_resource_to_block_cache = move_uploaded


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
    """Inputs for `Fields`, in its order."""
    model = predictor.model
    with gr.Group():
        with gr.Row():
            attributes = gr.Textbox(
                label="Attributes to score",
                placeholder=_own(len(model.attributes), "striped, wet"),
                min_width=200,
                elem_id="attributes",
            )
            categories = gr.Textbox(
                label="Categories to choose from",
                placeholder=_own(len(model.categories), "house, boat"),
                min_width=200,
                elem_id="categories",
            )
            tags = gr.Textbox(
                label="Tags to find",
                placeholder=_own(len(model.tagging.tags), "mug, table"),
                min_width=200,
                elem_id="tags",
            )
        with gr.Row():
            controls = gr.Textbox(
                label="Control words for captions",
                placeholder="red, boat",
                min_width=200,
                elem_id="controls",
            )
            views = gr.Dropdown(
                _policies(model.region_encoder.num_views),
                value=OWN_POLICY,
                label="How views are chosen",
                allow_custom_value=True,
                min_width=200,
                elem_id="views",
            )
    return [attributes, categories, tags, controls, views]


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


def _or_notice(answer: Callable[[], str]) -> str:
    """The answer, or in its place what is wrong; the page stays usable either way."""
    try:
        return answer()
    except (RequestError, ValueError) as error:
        return page_texts.notice(str(error))
    except Exception:
        logger.exception("no answer")
        return page_texts.notice("The server failed, not you; its log says why.")
