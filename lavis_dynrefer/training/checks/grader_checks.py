"""What grading needs on this machine; found before a run, not after hours of generation."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.util import find_spec

from lavis_dynrefer.errors import MissingPackageError
from lavis_dynrefer.metrics.java_tools import find_java
from lavis_dynrefer.training.checks.findings import Findings, missing
from lavis_dynrefer.training.run_settings import TASKS_OF


def check_graders(evaluators: Iterable[str | None]) -> Findings:
    """What these evaluators need; None for one that is not known yet."""
    if not any("caption" in TASKS_OF.get(str(name), ()) for name in evaluators):
        return
    if os.environ.get("RANK", "0") != "0":  # rank 0 grades
        return
    try:
        find_java()
    except MissingPackageError as error:
        yield missing(str(error))
    if find_spec("pycocoevalcap") is None:
        yield missing("grading captions needs pycocoevalcap; pip install pycocoevalcap")
