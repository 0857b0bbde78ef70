"""One file over HTTP, from good and bad servers."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time

import pytest
from weight_site import serve_weights

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.weights.fetching import transfer
from lavis_dynrefer.models.weights.fetching.transfer import (
    Expected,
    TransferError,
    download,
    mirrored,
    offline_variable,
)

CONTENT = bytes(range(256)) * 20
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(transfer, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(transfer, "_BLOCK", 100)
    for name in transfer.OFFLINE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with serve_weights() as server:
        yield server


@pytest.mark.parametrize(
    ("moods", "ranges"),
    [
        ([], [None]),
        ([("break", 1000)], [None, "bytes=1000-"]),
        ([("break", 1000), ("break", 500)], [None, "bytes=1000-", "bytes=1500-"]),
        ([("break", 1000), "whole"], [None, "bytes=1000-"]),  # begins again
        (["nameless"], [None]),
        (["lengthless"], [None]),
        ([503, 429], [None, None, None]),
        ([("break", 1000), 500], [None, "bytes=1000-", "bytes=1000-"]),
    ],
)
def test_a_file_arrives_whole_from_any_server(site, tmp_path, moods, ranges):
    url, target, counted = site.put("/a/vit.pth", CONTENT, *moods), tmp_path / "vit.pth", []

    assert download(url, target, arrived=counted.append) == DIGEST
    assert target.read_bytes() == CONTENT
    assert [wanted for _, wanted in site.asked] == ranges
    assert sum(counted) == len(CONTENT)
    assert os.listdir(tmp_path) == ["vit.pth"]


@pytest.mark.parametrize(
    ("moods", "expected", "message"),
    [
        ([404], Expected(), "the server answers 404"),
        ([403], Expected(), "the server answers 403"),
        ([503] * 9, Expected(), "the server answers 503"),
        ([("break", 300)] * 9, Expected(), None),  # each time a bit more
        ([("break", 0)] * 9, Expected(), "the connection ended too early"),
        ([], Expected(size=5121), "expected 5,121 bytes, the server has 5,120"),
        ([], Expected(sha256="0" * 64), f"expected sha256 {'0' * 64}, got {DIGEST}"),
        (["lengthless"], Expected(size=5119), "expected 5,119 bytes, got 5,120"),
        (["lengthless"] * 9, Expected(size=5121), "expected 5,121 bytes, got 5,120"),
        (["page"], Expected(), "the server sends a web page"),
        ([("anew", 900), ("anew", 500)] * 9, Expected(), "the connection ended too early"),
    ],
)
def test_what_cannot_be_had_is_named_and_nothing_looks_whole(
    site, tmp_path, moods, expected, message
):
    url = site.put("/vit.pth", CONTENT, *moods)
    if message is None:
        download(url, tmp_path / "vit.pth", expected=expected)
        return
    with pytest.raises(TransferError) as error:
        download(url, tmp_path / "vit.pth", expected=expected)

    assert url in str(error.value)
    assert message in str(error.value)
    assert not (tmp_path / "vit.pth").exists()


def test_an_end_that_looks_like_the_last_byte_is_known_by_the_published_size(site, tmp_path):
    url = site.put("/vit.pth", CONTENT, ("quiet", 1000))

    assert download(url, tmp_path / "vit.pth", expected=Expected(size=len(CONTENT))) == DIGEST
    assert [wanted for _, wanted in site.asked] == [None, "bytes=1000-"]


def test_a_server_that_changed_its_file_is_not_mixed(site, tmp_path):
    url, target = site.put("/vit.pth", CONTENT, *[("break", 1000)] + [("break", 0)] * 9), tmp_path
    with pytest.raises(TransferError):
        download(url, target / "vit.pth")
    site.put("/vit.pth", CONTENT[::-1])

    download(url, target / "vit.pth")

    assert (target / "vit.pth").read_bytes() == CONTENT[::-1]


def test_the_checksum_that_the_hub_tells_on_the_way_is_compared(site, tmp_path):
    place = site.put("/bucket/vit.pth", CONTENT)
    url = site.put("/owner/name/resolve/main/vit.pth", b"", ("elsewhere", place))
    site.large["/owner/name/resolve/main/vit.pth"] = DIGEST

    assert download(url, tmp_path / "vit.pth") == DIGEST
    site.put("/owner/name/resolve/main/vit.pth", b"", ("elsewhere", place))
    site.large["/owner/name/resolve/main/vit.pth"] = "f" * 64
    with pytest.raises(TransferError, match=r"expected sha256 f+, got"):
        download(url, tmp_path / "vit.pth")


def test_addresses_that_lead_in_a_circle_are_followed_once(site, tmp_path):
    url = site.put("/vit.pth", b"", *[("elsewhere", "/vit.pth")] * 99)

    with pytest.raises(TransferError, match="Exceeded 30 redirects"):
        download(url, tmp_path / "vit.pth")
    assert len(site.asked) == 31


def test_a_killed_download_is_continued(site, tmp_path):
    url = site.put("/vit.pth", CONTENT, ("slow", 0.002))
    code = (
        "import sys; from pathlib import Path\n"
        "from lavis_dynrefer.models.weights.fetching import transfer\n"
        "transfer._BLOCK = 100\n"
        "transfer.download(sys.argv[1], Path(sys.argv[2]))"
    )
    target, partial = tmp_path / "vit.pth", tmp_path / "vit.pth.part"
    child = subprocess.Popen([sys.executable, "-c", code, url, str(target)])
    while not (partial.exists() and partial.stat().st_size) and child.poll() is None:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
    child.wait()
    size = partial.stat().st_size
    assert 0 < size < len(CONTENT)

    assert download(url, target) == DIGEST
    assert target.read_bytes() == CONTENT
    assert site.asked == [("/vit.pth", None), ("/vit.pth", f"bytes={size}-")]


def test_a_whole_file_whose_name_was_not_changed_yet_is_not_downloaded_again(site, tmp_path):
    url = site.put("/vit.pth", CONTENT, ("break", 1000), *[("break", 0)] * 9)
    with pytest.raises(TransferError):
        download(url, tmp_path / "vit.pth")
    (tmp_path / "vit.pth.part").write_bytes(CONTENT)  # killed between the last byte and the name
    site.put("/vit.pth", CONTENT)

    assert download(url, tmp_path / "vit.pth") == DIGEST
    assert site.asked[-1] == ("/vit.pth", "bytes=5120-")


def test_a_full_disk_is_said_and_what_has_arrived_stays(site, tmp_path):
    def refuse(count):
        if count > 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    url = site.put("/vit.pth", CONTENT)
    with pytest.raises(InputError, match=r"no space left for .*vit\.pth"):
        download(url, tmp_path / "vit.pth", arrived=refuse)

    assert (tmp_path / "vit.pth.part").stat().st_size == 100


@pytest.mark.parametrize("variable", transfer.OFFLINE_VARIABLES)
def test_offline_asks_nobody(site, tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")

    with pytest.raises(TransferError, match=f"not downloaded, because {variable} is set"):
        download(site.put("/vit.pth", CONTENT), tmp_path / "vit.pth")
    assert site.asked == []
    monkeypatch.setenv(variable, "0")
    assert offline_variable() is None


def test_the_proxy_of_the_environment_is_asked(site, tmp_path, monkeypatch):
    site.put("/vit.pth", CONTENT)
    monkeypatch.setenv("http_proxy", site.address)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)

    assert download("http://weights.invalid/vit.pth", tmp_path / "vit.pth") == DIGEST


def test_no_connection_is_said_without_the_words_of_libraries(tmp_path, monkeypatch, site):
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    with pytest.raises(TransferError) as error:
        download("http://127.0.0.1:9/vit.pth", tmp_path / "vit.pth")
    assert str(error.value) == "cannot download http://127.0.0.1:9/vit.pth: Connection refused"


def test_mirrors_keep_the_path(monkeypatch):
    hub = "https://huggingface.co/google/flan-t5-xl/resolve/main/config.json"
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example/")

    assert mirrored(hub) == "https://hub.example/google/flan-t5-xl/resolve/main/config.json"
    assert (
        mirrored(hub, "http://m:80/x") == "http://m:80/x/google/flan-t5-xl/resolve/main/config.json"
    )
    assert mirrored("https://other.example/a.pth") == "https://other.example/a.pth"
