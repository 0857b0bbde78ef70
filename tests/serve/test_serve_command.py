"""`dynrefer serve` as a process: its start, its end, and wrong calls."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from serve_client import Client, encoded, wait_until

from lavis_dynrefer.cli import main

START = "import sys; from lavis_dynrefer.cli import main; sys.exit(main())"


LOSE = """
import torch
def lose(module, inputs):
    if module.training is False and len(inputs[-1]) == 3:  # not at the warm-up, with one region
        raise RuntimeError("CUDA error: device-side assert triggered")
from lavis_dynrefer.models.decoders.contrast import ContrastDecoder
made = ContrastDecoder.__init__
def make(self, *arguments, **named):
    made(self, *arguments, **named)
    self.decoder.register_forward_pre_hook(lose)
ContrastDecoder.__init__ = make
"""


sends_signals = pytest.mark.skipif(
    os.name == "nt", reason="on Windows a program can end another, but not ask it to end"
)


@contextmanager
def running(*options, before=""):
    """The process, and a client for the port that its log names."""
    command = [sys.executable, "-W", "ignore", "-c", before + START, "serve", "--port", "0"]
    command += options
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, encoding="utf-8")
    try:
        found = None
        while found is None:
            line = process.stderr.readline()
            assert line, "the server ended"
            found = re.search(r"dynrefer-tiny on http://127\.0\.0\.1:(\d+)", line)
        yield process, Client(int(found[1]))
    finally:
        process.kill()
        process.communicate()


@sends_signals
def test_stopping_server_finishes_running_requests_and_refuses_new_ones(scene):
    pytest.importorskip("fastapi", reason="needs the extra `serve`")
    asked = {"image": encoded(scene[0]), "boxes": scene[1], "tasks": ["caption"]}
    with running() as (process, client), client.half_a_request(asked) as finish:
        client.wait_for(requests=2)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: client.get("/health").status == 503)
        assert client.get("/health").json["status"] == "shutting_down"
        refusal = client.post("/v1/regions", asked)
        assert (refusal.status, refusal.error) == (503, "shutting_down")
        assert refusal.headers["retry-after"] == "1"
        reply = finish()
        assert reply.status == 200
        assert len(reply.json["regions"]) == len(scene[1])
        assert process.wait(60) == 0
        log = process.stderr.read()
    assert "SIGTERM: shutting down" in log
    assert re.search(r"POST /v1/regions 200 [\d.]+ ms 7 regions", log)
    assert "Traceback" not in log


@sends_signals
@pytest.mark.parametrize("grace", [pytest.param(0, marks=pytest.mark.slow), 600])
def test_requests_are_cut_off_after_the_grace_or_at_the_second_signal(scene, grace):
    pytest.importorskip("fastapi", reason="needs the extra `serve`")
    boxes = [[0, 0, 9 + number, 99] for number in range(471)] * 2  # seconds of work
    with running("--grace", str(grace)) as (process, client), ThreadPoolExecutor(1) as pool:
        reply = pool.submit(client.regions, scene[0], boxes)
        client.wait_for(answering=1)
        process.send_signal(signal.SIGINT)
        if grace:
            wait_until(lambda: client.get("/health").status == 503)
            process.send_signal(signal.SIGINT)
        assert (reply.result().status, reply.result().error) == (503, "shutting_down")
        assert process.wait(60) == 1
        log = process.stderr.read()
    assert "1 requests were cut off" in log
    assert "Traceback" not in log


@pytest.mark.slow
def test_server_that_has_lost_its_device_ends_with_code_4(scene):
    """After errors for the requests in progress; the log has the cause once."""
    asked = {"tasks": ["categories"], "categories": ["flower", "boat"]}
    with running(before=LOSE) as (process, client):
        assert client.regions(scene[0], scene[1][:2], **asked).status == 200
        reply = client.regions(scene[0], scene[1][:3], **asked)
        assert (reply.status, reply.error) == (503, "unhealthy")
        assert process.wait(60) == 4
        log = process.stderr.read()
    assert "the device is lost (CUDA error: device-side assert triggered): shutting down" in log
    assert log.count("Traceback") == 1


@sends_signals
@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_end_the_server_in_order(name):
    sent = getattr(signal, name, None)
    if sent is None:
        pytest.skip(f"this system has no {name}")
    with running() as (process, client):
        assert client.get("/health").status == 200
        process.send_signal(sent)
        assert process.wait(60) == 0
        assert f"{name}: shutting down" in process.stderr.read()


def test_taken_port_is_named(capsys):
    pytest.importorskip("fastapi", reason="needs the extra `serve`")
    from lavis_dynrefer.serve.http_server import bind

    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert f"cannot listen on 127.0.0.1 port {port}" in error
    assert "choose another --host or --port" in error


def test_port_taken_while_the_model_was_loaded_is_named():
    """Until one of them listens, Linux lets several programs have the port."""
    pytest.importorskip("fastapi", reason="needs the extra `serve`")
    from fastapi import FastAPI

    from lavis_dynrefer.errors import InputError
    from lavis_dynrefer.serve.http_server import HttpServer, bind

    def listen_twice():
        with (
            bind("127.0.0.1", 0) as first,
            bind("127.0.0.1", first.getsockname()[1]) as second,  # fails on other systems
        ):
            first.listen()
            HttpServer(FastAPI(), second).start()

    with pytest.raises(InputError, match=r"cannot listen on 127\.0\.0\.1 port \d+"):
        listen_twice()


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_server_listens_on_ipv6(host):
    pytest.importorskip("fastapi", reason="needs the extra `serve`")
    from lavis_dynrefer.errors import InputError
    from lavis_dynrefer.serve.http_server import bind

    try:
        bound = bind(host, 0)
    except InputError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    with bound:
        assert bound.getsockname()[0] == "::1"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--port", "99999", "port: expected a number from 0 to 65535, got 99999"),
        ("--host", "192.0.2.1", "cannot listen on 192.0.2.1 port 8008"),  # of documentation
        ("--host", "[::1", "cannot listen on [::1 port 8008"),
        ("--host", "a" * 300, "choose another --host or --port"),
        ("--cors-origin", "app.example.org", "cors_origin: expected scheme and host"),
        ("--max-boxes", "0", "max_boxes: expected at least 1, got 0"),
        ("--timeout", "0", "timeout: expected more than 0, got 0.0"),
        ("--timeout", "nan", "timeout: expected a finite number, got nan"),
        ("--max-pixels", "1000000000", "max_pixels: expected at most 178000000, got"),
    ],
)
def test_invalid_options_are_named(capsys, option, value, message):
    pytest.importorskip("fastapi", reason="needs the extra `serve`")
    assert main(["serve", option, value]) == 2
    assert message in capsys.readouterr().err


def test_missing_extra_is_named_with_its_install_command(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert main(["serve"]) == 2
    error = capsys.readouterr().err
    assert "dynrefer serve needs fastapi; pip install 'lavis_dynrefer[serve]'" in error


def test_address_open_to_the_network_is_warned_about(serving, caplog):
    from lavis_dynrefer.serve.http_server import bind, warn_if_open

    with bind("0.0.0.0", 0) as open_to_all, bind("127.0.0.1", 0) as own:
        warn_if_open(own)
        assert not caplog.records
        warn_if_open(open_to_all)
    assert "0.0.0.0 is open to the network" in caplog.text
