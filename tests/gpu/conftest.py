"""What the checks on a GPU need, and the table of what they found. They run by one command:

    python -m pytest -m gpu tests/gpu

`tests/imitated_device` runs most of them without a GPU.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parent
SYNCHRONISED = "called a synchronizing CUDA operation"  # torch's warning


def pytest_collection_modifyitems(items):
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.gpu)


class RealGpu:
    """The first CUDA device."""

    device = torch.device("cuda", 0)
    many = 384  # regions of the embedded model that fill a noticeable part of the memory
    workers = 1

    @contextmanager
    def counted(self):
        """A list that is filled with what made the CPU wait for the GPU, by file and line."""
        waits = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield waits
            finally:
                torch.cuda.set_sync_debug_mode("default")
                waits += [
                    f"{Path(one.filename).name}:{one.lineno}"
                    for one in caught
                    if SYNCHRONISED in str(one.message)
                ]

    @contextmanager
    def short_of_memory(self, work):
        """Leave twice the memory that some work takes, and no more."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        taken = torch.cuda.max_memory_allocated() - before
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(self.device).total_memory
        torch.cuda.set_per_process_memory_fraction((before + 2 * taken) / total)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
            torch.cuda.empty_cache()


@pytest.fixture(scope="module")
def gpu():
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    return RealGpu()


@pytest.fixture(scope="module")
def training_gpu(gpu):
    """As `gpu`; another one where only an imitation trains."""
    return gpu


def pytest_terminal_summary(terminalreporter):
    """The table of checks: what each measured, with what it allows in its name."""
    reports = [
        report
        for outcome in ("passed", "failed", "skipped")
        for report in terminalreporter.stats.get(outcome, ())
        if (report.when == "call" or not report.passed)
        and Path(report.nodeid.split("::")[0]).parent.name == FOLDER.name
    ]
    if not reports:
        return
    terminalreporter.section("checks on a GPU")
    if all(report.skipped for report in reports):
        reason = reports[0].longrepr[2].replace("Skipped: ", "")
        terminalreporter.line(f"{len(reports)} skipped: {reason}")
        return
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name(0)
        terminalreporter.line(f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    for report in sorted(reports, key=lambda report: report.nodeid):
        check = report.nodeid.rsplit("::", 1)[-1]
        terminalreporter.line(f"{report.outcome:7s} {report.duration:6.1f} s  {check}")
        notes = [f"{name}: {value}" for name, value in report.user_properties]
        for note in [*notes, *([report.longrepr[2]] if report.skipped else [])]:
            terminalreporter.line(f"{'':18s}{note}")
