"""Too many, too large, too slow, and failures inside."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image
from serve_client import encoded, wait_until

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from lavis_dynrefer.views.reading_ahead import READERS

BOX = [[1, 2, 3, 4]]
FEW = {"tasks": ["caption", "categories"], "categories": ["flower", "tree", "boat"]}


@pytest.mark.parametrize("chunked", [False, True])
def test_body_with_too_many_bytes_is_refused(serving, chunked):
    with serving(max_body=100_000) as client:
        body = b"x" * 3_000_000
        parts = iter([body[:2_000_000], body[2_000_000:]]) if chunked else body
        reply = client.request("POST", "/v1/regions", parts, content_type="application/json")
        assert reply.error == "too_large"
        assert "at most 100,000 bytes" in reply.message
        assert client.get("/health").status == 200


@pytest.mark.parametrize("length", [str(10**12), "9" * 5000, "12x", "-1"])
def test_invalid_content_length_is_refused_without_reading(client, length):
    connection = client.connect()
    connection.putrequest("POST", "/v1/regions")
    connection.putheader("content-length", length)
    connection.endheaders()
    assert connection.getresponse().status in (400, 413)
    connection.close()
    assert client.get("/health").status == 200


@pytest.mark.parametrize("value", ['""', "[]", "[1,2,3,4]", "{}"])
def test_body_with_too_many_values_is_refused_before_it_is_parsed(client, value):
    body = f'{{"boxes": [{",".join([value] * 1_000_000)}]}}'
    reply = client.post("/v1/regions", body)
    assert reply.error == "too_large"
    assert "at most 200,000 commas" in reply.message


def test_only_the_first_error_of_a_list_is_named(client, small_image):
    reply = client.regions(small_image, [], attributes=[""] * 900)
    assert reply.message.startswith("attributes[0]: expected at least 1 character")


def test_too_many_requests_are_refused(serving, small_image):
    with serving(max_requests=1) as client, client.half_a_request({"boxes": []}) as finish:
        reply = client.regions(small_image, [])
        assert reply.error == "overloaded"
        assert reply.headers["retry-after"] == "1"
        assert finish().error == "unprocessable"
        assert client.regions(small_image, []).status == 200


def test_full_queue_refuses_and_still_answers_its_requests(serving, predictor, small_image):
    with serving(max_queue=1) as client, ThreadPoolExecutor(2) as pool:
        with predictor.using_model():
            first = pool.submit(client.regions, small_image, BOX, **FEW)
            client.wait_for(answering=1)
            second = pool.submit(client.regions, small_image, BOX, **FEW)
            client.wait_for(queue=1)
            third = client.regions(small_image, BOX, **FEW)
        assert third.error == "overloaded"
        assert "retry-after" in third.headers
        assert [first.result().status, second.result().status] == [200, 200]


def test_full_queue_refuses_before_the_body_is_received(serving, predictor, small_image):
    with serving(max_queue=1) as client, ThreadPoolExecutor(2) as pool, predictor.using_model():
        pool.submit(client.regions, small_image, BOX, **FEW)
        client.wait_for(answering=1)
        pool.submit(client.regions, small_image, BOX, **FEW)
        client.wait_for(queue=1)
        with client.half_a_request({"boxes": []}) as finish:
            client.wait_for(requests=3)  # the two before, and GET /health itself
            assert finish().error == "overloaded"


@pytest.fixture
def blocked_readers(predictor, monkeypatch):
    """Crops of blue images wait until `release` is set; counts how many have begun."""
    release, begun = threading.Event(), []
    crop = predictor.crop

    def wait_and_crop(image, *arguments):
        if image.getpixel((0, 0)) == (0, 0, 255):
            begun.append(1)
            assert release.wait(20)
        return crop(image, *arguments)

    monkeypatch.setattr(predictor, "crop", wait_and_crop)
    yield release, begun
    release.set()


BLUE = Image.new("RGB", (40, 20), "blue")


def test_answers_do_not_wait_for_the_reading_of_other_requests(
    serving, predictor, small_image, blocked_readers
):
    release, begun = blocked_readers
    with serving(batch_wait=0.0) as client, ThreadPoolExecutor(READERS + 1) as pool:
        with predictor.using_model():
            first = pool.submit(client.regions, small_image, BOX, **FEW)
            client.wait_for(answering=1)
            others = [pool.submit(client.regions, BLUE, BOX, **FEW) for _ in range(READERS)]
            wait_until(lambda: len(begun) == READERS)
        assert first.result(10).status == 200
        release.set()
        assert [other.result().status for other in others] == [200] * READERS


def test_request_of_a_disconnected_client_is_not_read(serving, blocked_readers):
    release, begun = blocked_readers
    document = {"image": encoded(BLUE), "boxes": BOX, **FEW}
    with serving() as client, ThreadPoolExecutor(READERS) as pool:
        others = [pool.submit(client.post, "/v1/regions", document) for _ in range(READERS)]
        wait_until(lambda: len(begun) == READERS)
        connection = client.connect()
        connection.request(
            "POST", "/v1/regions", json.dumps(document), {"content-type": "application/json"}
        )
        client.wait_for(requests=READERS + 2)
        connection.close()
        client.wait_for(requests=READERS + 1)
        release.set()
        assert [other.result().status for other in others] == [200] * READERS
    assert len(begun) == READERS


def test_slow_answer_times_out(serving, predictor, small_image):
    with serving(timeout=0.3) as client:
        with predictor.using_model():
            reply = client.regions(small_image, [[1, 2, 3, 4]])
        assert reply.error == "timeout"
        assert client.get("/health").json["queue"] == 0


def test_slow_upload_times_out(serving):
    with serving(timeout=0.3) as client, client.half_a_request({"boxes": []}):
        client.wait_for(requests=2)
        client.wait_for(requests=1)


def test_request_of_a_disconnected_client_leaves_the_queue(serving, predictor, small_image):
    document = {"image": encoded(small_image), "boxes": [[1, 2, 3, 4]], **FEW}
    with serving(timeout=600) as client, ThreadPoolExecutor(1) as pool, predictor.using_model():
        pool.submit(client.post, "/v1/regions", document)
        client.wait_for(answering=1)
        connection = client.connect()
        connection.request(
            "POST", "/v1/regions", json.dumps(document), {"content-type": "application/json"}
        )
        client.wait_for(queue=1)
        connection.close()
        client.wait_for(queue=0)


def test_unexpected_failure_is_reported_without_details(serving, predictor, small_image, caplog):
    head = predictor.model.tagging
    hook = head.register_forward_pre_hook(lambda *_: 1 / 0)
    try:
        with serving() as client:
            reply = client.regions(small_image, [[1, 2, 3, 4]])
            assert client.get("/health").status == 200
    finally:
        hook.remove()
    assert (reply.status, reply.error) == (500, "internal_error")
    assert reply.message == "internal error; see the server log"
    assert "ZeroDivisionError" in caplog.text


def test_log_has_one_line_per_request(serving, small_image, caplog):
    caplog.set_level("INFO", "lavis_dynrefer.serve")
    with serving() as client:
        client.regions(small_image, [[1, 2, 3, 4], [5, 6, 7, 8]], tasks=["categories"])
        client.get("/no%0Athing")
    lines = [record.message for record in caplog.records if " /" in record.message]
    assert lines[0].startswith("POST /v1/regions 200 ")
    assert lines[0].endswith(" ms 2 regions")
    assert lines[1].startswith("GET /no%0Athing 404 ")
    assert len(lines) == 2
