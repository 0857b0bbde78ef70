"""Shared fixtures: where the reference material lies, and one thread for every test."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from tricky_images import write_tricky_images

FIXTURES = Path(__file__).parent / "fixtures"
SHARED = Path(os.environ.get("DYNREFER_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def pytest_addoption(parser):
    parser.addoption(
        "--golden",
        metavar="DIR",
        help="folder of numbers made by the official code; tests/golden compares with them",
    )


def pytest_configure(config):
    """With PYTHONWARNDEFAULTENCODING=1, text of an unnamed encoding is an error, here and in us."""
    if getattr(sys.flags, "warn_default_encoding", 0):  # from Python 3.10 on
        tests = {path.stem for path in Path(__file__).parent.rglob("*.py")}
        config.addinivalue_line("filterwarnings", "ignore::EncodingWarning")
        for module in ("lavis_dynrefer", f"({'|'.join(sorted(tests))})$"):
            config.addinivalue_line("filterwarnings", f"error::EncodingWarning:{module}")


def pytest_terminal_summary(terminalreporter):
    """One line for each reason to skip, with the number of tests."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped)
    if reasons:
        terminalreporter.section("skipped")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:4} {reason}")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # several threads contend badly on small machines


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """No test leaves anything in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DYNREFER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard():
    """What a shell starts in the background ignores Ctrl-C, and children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _children_do_not_warn():
    """Other packages do not name encodings; what a child prints there is not asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONWARNDEFAULTENCODING", raising=False)
        yield


NOT_SHIPPED = {  # folder of `SHARED` -> what it holds; none of it is ours to ship
    "fixtures": "photographs and annotations of COCO, OVAD, RefCOCOg and Visual Genome",
    "parity": "numbers of the released code",
}


def reason_to_skip(kind: str) -> str | None:
    """Why tests that need reference material are skipped; None if it is here."""
    if (SHARED / kind).is_dir():
        return None
    return f"needs {NOT_SHIPPED[kind]} in {SHARED / kind}; DYNREFER_SHARED names another folder"


def reference(kind: str) -> Path:
    """A folder of reference material, a key of `NOT_SHIPPED`; skips the test without it."""
    reason = reason_to_skip(kind)
    if reason is not None:
        pytest.skip(reason)
    return SHARED / kind


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the photographs and annotations in "fixtures"."""
    return reference("fixtures").parent


@pytest.fixture(scope="session")
def parity() -> Path:
    """Folder of numbers of the released code."""
    return reference("parity")


@pytest.fixture(scope="session")
def tricky_images(tmp_path_factory) -> Path:
    """Folder of odd and damaged image files; not to be written to."""
    return write_tricky_images(tmp_path_factory.mktemp("tricky"))


@pytest.fixture(scope="session")
def published_keys() -> dict:
    """Dataset -> part of its files -> the keys that the published files have there."""
    return json.loads((FIXTURES / "published_keys.json").read_text(encoding="utf-8"))


TAGS = ["red", "green", "blue", "house", "tree", "boat", "dog"]
SMALLEST = {
    "random_parts": True,
    "vision": {"image_size": 32, "patch_size": 8, "width": 32, "depth": 1, "heads": 2},
    "region": {"num_views": 2, "roi_size": 4},
    "qformer": {"num_queries": 4, "width": 32, "depth": 2, "heads": 2, "mlp_width": 64},
    "text": {
        "width": 32,
        "depth": 1,
        "heads": 2,
        "embed_dim": 16,
        "context_length": 16,
        "tokenizer": "assets/tiny/tokenizer.json",
    },
    "tagging": {"decoder": {"width": 32, "depth": 1, "heads": 2, "mlp_width": 64}},
    "contrast": {"decoder": {"width": 32, "depth": 1, "heads": 2, "mlp_width": 64}},
    "captioning": {
        "llm_options": {
            "tokenizer": "assets/tiny/tokenizer.json",
            "config": {
                "vocab_size": 768,
                "d_model": 32,
                "d_kv": 16,
                "d_ff": 64,
                "num_layers": 1,
                "num_heads": 2,
            },
        }
    },
}


@pytest.fixture(scope="session")
def smallest_config(tmp_path_factory) -> dict:
    """The `model` section of the smallest model that has every part; random weights."""
    folder = tmp_path_factory.mktemp("vocabulary")
    (folder / "tags.txt").write_text("\n".join(TAGS), encoding="utf-8")
    (folder / "categories.txt").write_text("house\ntree\nboat", encoding="utf-8")
    config = copy.deepcopy(SMALLEST)
    config["tagging"]["vocabulary"] = str(folder / "tags.txt")
    config["contrast"]["categories"] = str(folder / "categories.txt")
    return config


@pytest.fixture
def smallest_model(smallest_config):
    """A fresh smallest model, seeded."""
    from lavis_dynrefer.models.dynrefer import DynRefer

    torch.manual_seed(0)
    return DynRefer.from_config(smallest_config)


@pytest.fixture(scope="module")
def region_batch() -> dict:
    """Five regions of noise with captions and tags, as a collater returns them."""
    generator = torch.Generator().manual_seed(1)
    boxes = torch.tensor([[0.0, 0.0, 32.0, 32.0], [8.0, 8.0, 24.0, 20.0]])
    return {
        "views": torch.randint(0, 256, (5, 2, 3, 32, 32), dtype=torch.uint8, generator=generator),
        "boxes": boxes.repeat(5, 1, 1),
        "scales": torch.tensor([[0.0, 0.5]]).repeat(5, 1),
        "image_boxes": torch.arange(20.0).reshape(5, 4),
        "captions": ["a red house", "a green tree", "a blue boat", "a dog", "a red boat"],
        "tags": [[0, 3], [1, 4], [2, 5], [6], [0, 5]],  # indices into TAGS
        "controls": ["house|", "|", "blue,boat|", "|", "red|"],
    }


@pytest.fixture(scope="session")
def meteor(tmp_path_factory):
    """One METEOR for all tests, as it takes seconds to start.

    On a machine that speaks German, and in a folder whose name has a blank.
    """
    from pycocoevalcap.meteor import meteor as coco_meteor

    from lavis_dynrefer.metrics.java_tools import Meteor

    installed = Path(coco_meteor.__file__).parent
    folder = tmp_path_factory.mktemp("with a blank")
    shutil.copy(installed / coco_meteor.METEOR_JAR, folder)
    (folder / "data").symlink_to(installed / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE")
        patch.setattr(coco_meteor, "__file__", str(folder / "meteor.py"))
        running = Meteor()
    with running:
        yield running
