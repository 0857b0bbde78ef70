"""Shared fixtures: where the reference material lies, and one thread for every test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

SHARED = Path(os.environ.get("DYNREFER_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # several threads contend badly on small machines


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real samples and golden numbers that are not ours to ship."""
    if not SHARED.is_dir():
        pytest.skip(f"reference material not found at {SHARED}; set DYNREFER_SHARED to its folder")
    return SHARED
