"""Runs code in a fresh interpreter: for tests of what happens when LAVIS is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_python(code, *paths):
    """Run code in an interpreter that sees `paths` first, then this checkout.

    The installed start-up hook is switched off, so that this checkout's is tested.
    """
    path = os.pathsep.join(str(path) for path in (*paths, ROOT))
    ours = {"PYTHONPATH": path, "LAVIS_DYNREFER_AUTOLOAD": "0", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **ours},
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
