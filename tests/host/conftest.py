"""Shared by the tests of what happens when LAVIS is imported: a fresh interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run_python():
    """Run code in a fresh interpreter that sees `paths` first, then this checkout.

    The installed start-up hook is switched off: what is tested is this checkout's.
    """

    def run(code, *paths, **variables):
        path = os.pathsep.join(str(path) for path in (*paths, ROOT))
        return subprocess.run(
            [sys.executable, "-c", code],
            env={
                **os.environ,
                "PYTHONPATH": path,
                "LAVIS_DYNREFER_AUTOLOAD": "0",
                "OMP_NUM_THREADS": "1",
                **variables,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    return run
