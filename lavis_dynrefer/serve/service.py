"""The endpoints: what happens to a request between its arrival and its answer."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from PIL import Image
from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData, UploadFile

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.choosing.scale_choice import usable_policies
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.questions import TASKS
from lavis_dynrefer.serve.json_bodies import Health, ModelCard, OpenAIModel, OpenAIModels
from lavis_dynrefer.serve.openai_chat import (
    DAM_MODELS,
    TokenCounter,
    answer_text,
    check_model,
    completion,
    event_stream,
    read_chat,
)
from lavis_dynrefer.serve.request_batching import Batcher, CroppedRequest
from lavis_dynrefer.serve.request_errors import RETRY_AFTER, RequestError
from lavis_dynrefer.serve.request_gate import Traffic
from lavis_dynrefer.serve.request_reading import RequestReader
from lavis_dynrefer.serve.service_limits import ServeSettings
from lavis_dynrefer.structures import familiarity_remark
from lavis_dynrefer.views.reading_ahead import READERS

Value = TypeVar("Value")
_STOPPING = 1.0  # seconds for the model's thread to end when nothing is waiting
_TICK = 0.05  # seconds
_JSON, _FORM = "application/json", "multipart/form-data"
_PARTS = ("image", "request")  # of a form


class Service:
    """Answers requests about regions with one predictor.

    Args:
        predictor: the model.
        name: model type; clients know the model as "dynrefer-" and this.
        settings: limits and batching.
    """

    def __init__(self, predictor: RegionPredictor, name: str, settings: ServeSettings) -> None:
        self.predictor = predictor
        self.model = f"dynrefer-{name}"
        self._names = (self.model, "dynrefer")
        self.settings = settings
        self.traffic = Traffic(settings)
        self.reader = RequestReader(predictor, settings)
        self.tokens = TokenCounter(predictor.model)
        self.batcher = Batcher(predictor.answer_samples, settings)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="reader")
        self._began = int(time.time())

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Run the model's thread while the application runs."""
        del app
        self.batcher.start()
        yield
        await asyncio.get_running_loop().run_in_executor(None, self.batcher.close, _STOPPING)
        self._readers.shutdown(wait=False, cancel_futures=True)

    @property
    def failure(self) -> str | None:
        """Why no request can be answered any more; None while all is well."""
        return self.batcher.failure

    def warm_up(self) -> None:
        """Answer once, so that the first client does not wait for the embedded vocabularies."""
        self.predictor.predict(Image.new("RGB", (64, 64)), [[0, 0, 64, 64]])

    def drain(self, stop_now: Callable[[], bool]) -> None:
        """Refuse new requests, and wait until the running ones are finished or the grace is over.

        Args:
            stop_now: polled; True ends the grace period early.
        """
        self.traffic.closing = True
        deadline = time.monotonic() + self.settings.grace
        while self.traffic.running and time.monotonic() < deadline and not stop_now():
            time.sleep(_TICK)

    async def health(self) -> Response:
        """Whether requests are accepted.

        200, or 503 if the server is shutting down, or unhealthy: its device is lost.
        """
        status, reason = "ready", self.failure
        if reason is not None:
            status = "unhealthy"
        elif self.traffic.closing:
            status = "shutting_down"
        health = Health(
            status=status,
            reason=reason,
            model=self.model,
            device=str(self.predictor.device),
            queue=len(self.batcher),
            answering=self.batcher.answering,
            requests=self.traffic.running,
        )
        if status == "ready":
            return JSONResponse(health.model_dump())
        return JSONResponse(health.model_dump(), 503, {"Retry-After": str(RETRY_AFTER)})

    async def model_card(self) -> ModelCard:
        """The model: its vocabularies, tasks and view policies, and the limits of a request."""
        model = self.predictor.model
        return ModelCard(
            model=self.model,
            device=str(self.predictor.device),
            dtype=str(self.predictor.dtype or "float32").replace("torch.", ""),
            vocabularies={
                "tags": len(model.tagging.tags),
                "attributes": len(model.attributes),
                "categories": len(model.categories),
            },
            tasks=list(TASKS),
            views=usable_policies(model),
            num_views=model.region_encoder.num_views,
            limits=dataclasses.asdict(self.settings),
        )

    async def models(self) -> OpenAIModels:
        """The model in OpenAI's format."""
        return OpenAIModels(data=[OpenAIModel(id=self.model, created=self._began)])

    async def model_of_name(self, request: Request) -> OpenAIModel:
        """The model under one of its names, in OpenAI's format."""
        check_model(request.path_params["model"], self._names)
        return OpenAIModel(id=self.model, created=self._began)

    async def regions(self, request: Request) -> Response:
        """Describe regions of one image.

        The request is json with the image in it, or a multipart form with the image as file
        `image` and the json as field `request`.
        """
        return await self._in_time(self._regions(request))

    async def chat(self, request: Request) -> Response:
        """Describe regions of one image, in the format of OpenAI's chat.

        The region is `<box>x1,y1,x2,y2</box>` in the user's last text, `boxes` or `masks` beside
        the messages, or the alpha channel of the image; of several images, the alpha channel of
        each. The answer has one line per region. The rest of the text is ignored.
        """
        return await self._in_time(self._chat(request))

    async def _regions(self, request: Request) -> Response:
        started = time.monotonic()
        with self.batcher.expecting():
            data, uploaded = await _json_and_image(request, self.settings.max_body)
            reading = self._readers.submit(self.reader.read_regions, data, uploaded)
            cropped = await _while_connected(request, reading)
            read_seconds = time.monotonic() - started
            self._submit(request, cropped)
        answered = await _while_connected(request, cropped.answered)
        timings = {
            "read_ms": read_seconds,
            "queue_ms": answered.queue_seconds,
            "model_ms": answered.model_seconds,
            "total_ms": time.monotonic() - started,
        }
        width, height = cropped.image_size
        document = {
            "image": {"width": width, "height": height},
            "model": self.model,
            "timings": {name: round(1000 * value, 3) for name, value in timings.items()},
            "batch": {"requests": answered.batch_requests, "regions": answered.batch_regions},
        }

        def write() -> bytes:
            rows = [prediction.to_dict() for prediction in answered.predictions]
            remark = familiarity_remark(answered.predictions)
            answer = {"regions": rows, "remark": remark, **document}
            return json.dumps(answer, allow_nan=False).encode()

        return Response(await asyncio.to_thread(write), media_type="application/json")

    async def _chat(self, request: Request) -> Response:
        _check_content(request, _JSON)
        with self.batcher.expecting():
            data = await request.body()
            reading = self._readers.submit(read_chat, self.reader, data, models=self._names)
            chat = await _while_connected(request, reading)
            self._submit(request, chat.cropped)
        predictions = (await _while_connected(request, chat.cropped.answered)).predictions
        body = chat.body

        def write() -> Response:
            text = answer_text(predictions, chat.cropped.questions.tasks)
            rows = [prediction.to_dict() for prediction in predictions]
            for row, image in zip(rows, chat.images):
                row["image"] = image
            own = {"regions": rows, "remark": familiarity_remark(predictions)}
            usage = self.tokens.usage(len(predictions), text)
            if not body.stream:
                answer = completion(self.model, text, own, usage)
                return Response(json.dumps(answer, allow_nan=False), media_type="application/json")
            with_usage = body.stream_options is not None and body.stream_options.include_usage
            events = event_stream(
                self.model,
                text,
                own,
                usage,
                with_usage=bool(with_usage),
                in_parts=body.model in DAM_MODELS,
            )
            return Response(events, media_type="text/event-stream")

        return await asyncio.to_thread(write)

    def _submit(self, request: Request, cropped: CroppedRequest) -> None:
        request.state.regions = len(cropped)  # for the log
        self.batcher.submit(cropped)

    async def _in_time(self, answer: Awaitable[Response]) -> Response:
        try:
            return await asyncio.wait_for(answer, self.settings.timeout)
        except asyncio.TimeoutError as error:
            raise RequestError(
                "timeout",
                f"no answer within {self.settings.timeout:g} s; send fewer regions, or start "
                "the server with a longer --timeout",
            ) from error


def _check_content(request: Request, *kinds: str) -> str:
    """The content type, if it is one of `kinds`; browsers ask before they send json elsewhere."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in kinds:
        raise RequestError(
            "unsupported_media_type",
            f"content-type: expected {' or '.join(kinds)}, got {kind!r:.60}",
        )
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise RequestError(
            "unsupported_media_type",
            f"content-encoding: expected an uncompressed request, got {encoding!r:.60}",
        )
    return kind


async def _json_and_image(request: Request, max_body: int) -> tuple[bytes, bytes | None]:
    """The json, and the image file unless it is in the json; names of files are not read."""
    if _check_content(request, _JSON, _FORM) == _JSON:
        return await request.body(), None
    try:
        async with request.form(max_files=2, max_fields=2, max_part_size=max_body) as form:
            return await _parts(form)
    except FormParserError as error:  # newer versions of starlette answer it themselves
        raise InputError(f"damaged multipart form: {error}") from error


async def _parts(form: FormData) -> tuple[bytes, bytes]:
    """The json and the image file of a form."""
    parts = dict(form.multi_items())
    image, written = parts.get("image"), parts.get("request")
    complete = isinstance(image, UploadFile) and written is not None
    if not complete or len(form.multi_items()) != len(parts) or len(parts) != len(_PARTS):
        raise InputError(
            f"expected a multipart form with the file `image` and the json `request`, got "
            f"{', '.join(name for name, _ in form.multi_items())!r:.100}"
        )
    # curl -F request=@file sends the json as a file, too.
    data = await written.read() if isinstance(written, UploadFile) else written.encode()
    return data, await image.read()


async def _while_connected(request: Request, work: Future[Value]) -> Value:
    """Wait for work as long as the client does, then cancel it if it has not begun."""
    result = asyncio.wrap_future(work)
    gone = asyncio.ensure_future(request.receive())  # after the body, only a disconnect comes
    both: set[asyncio.Future[Any]] = {result, gone}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise RequestError("client_gone", "the client closed the connection")
        return result.result()
    finally:
        gone.cancel()
        result.cancel()
