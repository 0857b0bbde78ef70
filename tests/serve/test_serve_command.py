"""`dynrefer serve` as a process: its start, its end, and how it is called wrongly."""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from lavis_dynrefer.cli import main
from lavis_dynrefer.serve import ServeSettings, require_packages

START = "import sys; from lavis_dynrefer.cli import main; sys.exit(main())"


def encoded(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"


def ask(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request(method, path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@contextmanager
def running(*options):
    """The process, and its port as its log tells it."""
    command = [sys.executable, "-W", "ignore", "-c", START, "serve", "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        found = None
        while found is None:
            line = process.stderr.readline()
            assert line, "the server ended"
            found = re.search(r"dynrefer-tiny on http://127\.0\.0\.1:(\d+)", line)
        yield process, int(found[1])
    finally:
        process.kill()
        process.communicate()


def test_a_stopping_server_finishes_what_it_has_and_refuses_what_is_new(scene):
    pytest.importorskip("fastapi", reason="needs the extra `serve`")
    body = json.dumps({"image": encoded(scene[0]), "boxes": scene[1], "tasks": ["caption"]})
    with running() as (process, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.putrequest("POST", "/v1/regions")
        connection.putheader("content-type", "application/json")
        connection.putheader("content-length", str(len(body)))
        connection.endheaders(body[:-1].encode())  # under way from here on
        wait_until(lambda: ask(port, "GET", "/health")[1]["requests"] == 2)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: ask(port, "GET", "/health")[0] == 503)
        assert ask(port, "GET", "/health")[1]["status"] == "shutting_down"
        status, refusal = ask(port, "POST", "/v1/regions", body)
        assert (status, refusal["error"]["type"]) == (503, "shutting_down")
        connection.send(body[-1:].encode())
        answer = connection.getresponse()
        assert answer.status == 200
        assert len(json.loads(answer.read())["regions"]) == len(scene[1])
        assert process.wait(60) == 0
        log = process.stderr.read()
    assert "SIGTERM: shutting down" in log
    assert re.search(r"POST /v1/regions 200 [\d.]+ ms 7 regions", log)
    assert "Traceback" not in log


def test_requests_that_outlast_their_grace_are_cut_off(scene):
    pytest.importorskip("fastapi", reason="needs the extra `serve`")
    boxes = [[0, 0, 9 + number, 99] for number in range(471)] * 2  # seconds of work
    body = json.dumps({"image": encoded(scene[0]), "boxes": boxes})
    with running("--grace", "0") as (process, port), ThreadPoolExecutor(1) as pool:
        reply = pool.submit(ask, port, "POST", "/v1/regions", body)
        wait_until(lambda: ask(port, "GET", "/health")[1]["answering"] == 1)
        process.send_signal(signal.SIGINT)
        status, refusal = reply.result()
        assert (status, refusal["error"]["type"]) == (503, "shutting_down")
        assert process.wait(60) == 1
        log = process.stderr.read()
    assert "1 requests were cut off" in log
    assert "Traceback" not in log


def test_a_port_that_is_taken_is_named(capsys):
    pytest.importorskip("fastapi", reason="needs the extra `serve`")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert f"cannot listen on 127.0.0.1 port {port}" in error
    assert "choose another --host or --port" in error


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--port", "99999", "port: expected a number from 0 to 65535, got 99999"),
        ("--host", "192.0.2.1", "cannot listen on 192.0.2.1 port 8008"),  # of documentation
    ],
)
def test_an_address_that_is_none_is_named(capsys, option, value, message):
    pytest.importorskip("fastapi", reason="needs the extra `serve`")
    assert main(["serve", option, value]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--max-boxes", "0", "max_boxes: expected at least 1, got 0"),
        ("--timeout", "0", "timeout: expected more than 0 seconds"),
        ("--timeout", "nan", "timeout: expected at least 0, got nan"),
        ("--max-pixels", "1000000000", "max_pixels: expected at most 178,000,000"),
    ],
)
def test_numbers_that_make_no_sense_are_named(capsys, option, value, message):
    pytest.importorskip("fastapi", reason="needs the extra `serve`")
    assert main(["serve", option, value]) == 2
    assert message in capsys.readouterr().err


def test_without_the_extra_its_command_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert main(["serve"]) == 2
    error = capsys.readouterr().err
    assert "dynrefer serve needs fastapi; pip install 'lavis_dynrefer[serve]'" in error


def test_an_open_address_is_warned_of(serving, caplog):
    from lavis_dynrefer.serve.server import bind, warn_if_open

    with bind("0.0.0.0", 0) as open_to_all, bind("127.0.0.1", 0) as own:
        warn_if_open(own)
        assert not caplog.records
        warn_if_open(open_to_all)
    assert "0.0.0.0 is open to the network" in caplog.text


def test_the_settings_need_no_extra():
    assert ServeSettings().max_boxes == 1000
    assert callable(require_packages)
