"""Hostile input at the three doors: RegionPredictor, `dynrefer predict`, `dynrefer serve`.

docs/limits.md tells people what happens; the tables here are its proof.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import math
import struct
import subprocess
import sys
import zlib
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from lavis_dynrefer import RegionPredictor
from lavis_dynrefer.cli import main
from lavis_dynrefer.formats import read_results

QUESTION = {"tasks": ["categories"], "categories": ["dog", "cat"]}
AS_OPTIONS = ["--tasks", "categories", "--categories", "dog,cat", "--no-normalised"]
BOX = [[1, 1, 9, 9]]
MAX_MB = 500  # all cases together; one image of 50,000 x 50,000 pixels alone takes 7,500


def saved(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png_of(width, height, data=b""):
    """A png of any size whose pixels may be missing, or too many."""

    def chunk(kind, body):
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def bomb_of_text():
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 5_000_000, zip=True)
    return saved(Image.new("L", (40, 20)), pnginfo=text)


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8))
PLAIN = saved(NOISE)
JPEG = saved(NOISE, "JPEG")
EXIF = Image.Exif()
EXIF[0x0112] = 6  # turn by 90 degrees to show it
ROTATED = saved(NOISE, "JPEG", exif=EXIF)
ANIMATED = saved(Image.new("P", (40, 20)), "GIF", save_all=True, append_images=[NOISE.quantize()])


@dataclass(frozen=True)
class Case:
    """An image and boxes; how many answers there are, or what the errors say."""

    file: bytes = PLAIN
    boxes: Any = field(default_factory=lambda: BOX)
    answers: int | None = None
    message: str = ""  # of RegionPredictor and the command line
    status: int = 200
    sent: str = ""  # the service's message


def accept(file=PLAIN, boxes=BOX, answers=1):
    return Case(file, boxes, answers)


def refuse(message, status, sent, file=PLAIN, boxes=BOX):
    return Case(file, boxes, None, message, status, sent)


def box(*corners):
    return {"boxes": [list(corners)]}


LARGE = ("178,000,000 pixels", 413, "40,000,000 pixels")
NOT_AN_IMAGE = ("cannot identify", 415)
CASES = {
    "50,000 x 50,000 pixels": refuse(*LARGE, png_of(50_000, 50_000)),
    "50,000 x 50,000 pixels of PPM": refuse(*LARGE, b"P6 50000 50000 255\n"),
    "a width beyond 31 bits": refuse(*LARGE, png_of(2**32 - 1, 1)),
    "no pixels": refuse("cannot read", 415, "expected an image", png_of(0, 20)),
    "a zip bomb behind the pixels": accept(png_of(40, 20, bytes(20 * 41) + bytes(50_000_000))),
    "a zip bomb of text": refuse("data too large", 422, "damaged image", bomb_of_text()),
    "a page of html": refuse(*NOT_AN_IMAGE, "html", b"<!DOCTYPE html><html>404</html>"),
    "a program": refuse(*NOT_AN_IMAGE, "something else", b"\x7fELF" * 99),
    "an empty file": refuse(*NOT_AN_IMAGE, "got nothing", b""),
    "a truncated jpeg": refuse("truncated", 422, "damaged image", JPEG[: len(JPEG) // 2]),
    "a truncated png": refuse("cannot read", 422, "damaged image", PLAIN[:900]),
    "an animated gif": accept(ANIMATED),
    "a CMYK jpeg": accept(saved(NOISE.convert("CMYK"), "JPEG")),
    "a 16-bit png": accept(saved(Image.fromarray(np.full((20, 40), 40_000, np.uint16)))),
    "a palette with transparency": accept(saved(NOISE.convert("P"), transparency=0)),
    "two colours": accept(saved(NOISE.convert("1"))),
    # pixels as stored: 40 x 20, though it is shown as 20 x 40
    "a rotated image": accept(ROTATED, [[30, 10, 40, 20]]),
    "a rotated image, as shown": refuse(
        "inside the 40 x 20", 422, "40 x 20", ROTATED, [[10, 30, 20, 40]]
    ),
    "one pixel": accept(saved(Image.new("RGB", (1, 1))), [[0, 0, 1, 1]]),
    "a line": accept(saved(Image.new("RGB", (20_000, 1))), [[0, 0, 20_000, 1]]),
    "no boxes": accept(boxes=[], answers=0),
    "100 boxes": accept(boxes=BOX * 100, answers=100),
    "a box of a pixel": accept(**box(39, 19, 40, 20)),
    "a box of less than a pixel": accept(**box(3.2, 3.2, 3.3, 3.3)),
    "a box of no width": accept(**box(3, 3, 3, 9)),
    "a box beyond the image": accept(**box(-1e29, -9, 1e29, 99)),
    "a box outside": refuse("no part", 422, "no part", **box(50, 2, 60, 4)),
    "a box of nan": refuse("not finite", 422, "a finite number", **box(1, 1, math.nan, 9)),
    "a box of infinity": refuse("not finite", 422, "a finite number", **box(1, 1, math.inf, 9)),
    "a box beyond all floats": refuse("rows of 4", 422, "a finite number", **box(1, 1, 10**400, 9)),
    "a box with swapped corners": refuse("wrong order", 422, "wrong order", **box(9, 9, 1, 1)),
}


@pytest.fixture(scope="module", autouse=True)
def peak_before():
    """MB the process has had at most, before any case."""
    return peak()


def peak():
    resource = pytest.importorskip("resource", reason="not on Windows")
    value = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return value / (2**20 if sys.platform == "darwin" else 2**10)


@pytest.fixture(scope="module")
def predictor(peak_before):
    made = RegionPredictor("tiny", device="cpu")
    made.predict(NOISE, BOX)
    return made


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """`dynrefer predict` over all cases at once: its exit code and its output folder."""
    images, output = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("out") / "x"
    for name, case in CASES.items():
        (images / f"{name}.jpg").write_bytes(case.file)
    (images / "loop.jpg").symlink_to(images / "loop.jpg")
    (images / "around").symlink_to(images)
    (images / "folder.jpg").mkdir()
    boxes = {f"{name}.jpg": case.boxes for name, case in CASES.items()}
    file = output.parent / "boxes.json"
    file.write_text(
        json.dumps({**boxes, "loop.jpg": BOX, "../../../etc/passwd": BOX}), encoding="utf-8"
    )
    arguments = [images, "--recursive", "--boxes", file, *AS_OPTIONS, "--output", output]
    return main(["predict", *map(str, arguments)]), output, images


@pytest.fixture(scope="module")
def ask(predictor):
    """Ask a server for as long as the module runs: document -> status and answer."""
    pytest.importorskip("fastapi", reason="needs the extra `serve`")
    from lavis_dynrefer.serve.http_app import create_app
    from lavis_dynrefer.serve.http_server import HttpServer, bind

    bound = bind("127.0.0.1", 0)
    server = HttpServer(create_app(predictor), bound)
    server.start()

    def ask(document, kind="application/json"):
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        connection = http.client.HTTPConnection("127.0.0.1", bound.getsockname()[1], timeout=120)
        connection.request("POST", "/v1/regions", body, {"content-type": kind})
        reply = connection.getresponse()
        found = reply.status, json.loads(reply.read())
        connection.close()
        return found

    yield ask
    server.stop()


def request_of(case):
    image = base64.b64encode(case.file).decode()
    return {"image": image, "boxes": case.boxes, "normalised": False, **QUESTION}


@pytest.mark.parametrize("name", list(CASES))
def test_every_door_answers_or_says_why_not(predictor, command, ask, tmp_path, name):
    case, (code, output, _) = CASES[name], command
    path = tmp_path / f"{name}.jpg"
    path.write_bytes(case.file)
    refused = case.answers is None
    with pytest.raises(ValueError, match=case.message) if refused else nullcontext():
        assert (
            len(predictor.predict(path, case.boxes, normalised=False, **QUESTION)) == case.answers
        )

    answered = {row.image: len(row.regions) for row in read_results(output / "results.jsonl")}
    failures = json.loads((output / "failures.json").read_text(encoding="utf-8"))
    assert code == 3
    assert answered.get(path.name) == case.answers
    assert case.message in failures.get(path.name, "")

    status, answer = ask(request_of(case))
    assert status == case.status
    if refused:
        assert case.sent in answer["error"]["message"]
    else:
        assert len(answer["regions"]) == case.answers


def test_loops_and_folders_named_like_images_are_harmless(command):
    _, output, _ = command
    failures = json.loads((output / "failures.json").read_text(encoding="utf-8"))
    assert failures["loop.jpg"].startswith("no image ")
    assert not [name for name in failures if "folder" in name or "around" in name]
    assert len(failures) == 1 + sum(case.answers is None for case in CASES.values())


@pytest.mark.parametrize("name", ["loop.jpg", "folder.jpg", "absent.jpg", "x" * 5000, "a\0b", ""])
def test_a_path_without_a_file_is_named(predictor, command, name):
    with pytest.raises((FileNotFoundError, ValueError), match="image"):
        predictor.predict(str(command[2] / name), BOX)


@pytest.mark.parametrize("name", ["../../../evil.png", "/evil.png", "..\\evil.png", "con\0.png"])
def test_names_in_results_cannot_leave_the_folder(command, tmp_path, name):
    image = tmp_path / "in" / "good.png"
    image.parent.mkdir()
    image.write_bytes(PLAIN)
    output = tmp_path / "a" / "b" / "out"
    arguments = ["predict", str(image), "--box", "1,1,9,9", *AS_OPTIONS, "--output", str(output)]
    assert main(arguments) == 0
    (row,) = [
        json.loads(line)
        for line in (output / "results.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    with (output / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({**row, "image": name}) + "\n")
    everything = "json,coco,csv,label-studio,fiftyone"
    assert main([*arguments, "--draw", "--format", everything]) == 0
    assert len(list((output / "annotated").iterdir())) == 2
    inside = [path.name for path in tmp_path.rglob("*") if output not in path.parents]
    assert sorted(inside) == ["a", "b", "good.png", "in", "out"]


def test_names_of_uploads_are_ignored(ask):
    parts = [
        ('name="request"', json.dumps({"boxes": BOX, **QUESTION}).encode()),
        ('name="image"; filename="../../evil.jpg"', PLAIN),
    ]
    body = b"".join(
        f"--x\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + content + b"\r\n"
        for head, content in parts
    )
    status, answer = ask(body + b"--x--\r\n", "multipart/form-data; boundary=x")
    assert (status, len(answer["regions"])) == (200, 1)


ODD = ["花", "مبلل", "\U0001f600", "e\u0301", "\u202eabc", "a\u200b", "<b>&amp;", "'; --", "dog"]
MANY = [f"thing {number}" for number in range(10_000)]
WORDS = {
    # words -> answered by RegionPredictor and the command line? by the service?
    "of all scripts": (ODD, True, 200),
    "very long": (["x" * 100_000, "dog"], True, 413),
    "10,000": (MANY, True, 413),
    "empty": (["dog", ""], False, 422),
    "of control characters": (["dog", "a\x01b"], False, 422),
    "a lone surrogate": (["dog", "\udcff"], False, 400),
}


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "attributes") for name in WORDS), ("of all scripts", "categories")]
)
def test_words_are_scored_or_refused(predictor, ask, name, kind):
    words, answered, status = WORDS[name]
    question = {"tasks": [kind], kind: words}
    if answered:
        (found,) = predictor.predict(NOISE, BOX, **question)
        assert {word for word, _ in getattr(found, kind)} == set(words)
    else:
        with pytest.raises(ValueError, match=kind):
            predictor.predict(NOISE, BOX, **question)
    assert ask({**request_of(Case()), "categories": None, **question})[0] == status


def test_the_command_reads_odd_words_from_a_file(tmp_path):
    words = [*ODD, "x" * 100_000, *MANY[:1000]]
    (tmp_path / "words.txt").write_text("\n".join(words), encoding="utf-8")
    (tmp_path / "a.png").write_bytes(PLAIN)
    question = ["--tasks", "categories", "--categories", f"@{tmp_path / 'words.txt'}"]
    arguments = [str(tmp_path / "a.png"), "--whole-image", *question, "--output"]
    everything = ["--format", "csv,coco,label-studio,fiftyone", "--draw"]
    assert main(["predict", *arguments, str(tmp_path / "out"), *everything]) == 0
    (row,) = read_results(tmp_path / "out/results.jsonl")
    assert {word for word, _ in row.regions[0].categories} == set(words)


BOMB = """
import resource, sys
from lavis_dynrefer import RegionPredictor
predictor = RegionPredictor("tiny", device="cpu")
predictor.predict(sys.argv[2], [[1, 1, 9, 9]], tasks=["categories"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = predictor.predict(sys.argv[1], [[1, 1, 9, 9]], tasks=["categories"])
print(len(found), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_the_largest_image_takes_a_few_times_its_pixels(tmp_path):
    bomb = png_of(13_000, 13_000, bytes(13_000 * 13_001))
    assert len(bomb) < 200_000
    (tmp_path / "bomb.png").write_bytes(bomb)
    (tmp_path / "a.png").write_bytes(PLAIN)
    command = [sys.executable, "-c", BOMB, str(tmp_path / "bomb.png"), str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8")
    answers, megabytes = map(int, done.stdout.split()[-2:])
    assert answers == 1
    assert megabytes < 8 * 169  # gray, RGB in 4 bytes, and a part of it once more: 1,114


@pytest.mark.slow
def test_10_000_boxes_of_one_image_are_answered(predictor):
    before = peak()
    assert len(predictor.predict(NOISE, BOX * 10_000, **QUESTION)) == 10_000
    assert peak() - before < MAX_MB


def test_the_process_stays_small(peak_before, ask, command):
    assert ask(request_of(Case()))[0] == 200
    assert peak() - peak_before < MAX_MB
