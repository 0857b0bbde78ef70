"""What has to be imported or started to be known, in a process of its own.

A torch that crashes the interpreter, or a driver that never answers, then costs one line of the
report. The process is given names of probes and prints a line of json for each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

SECONDS = 120  # for all probes; a torch on a cold disk takes a while
_MARK = "dynrefer-probe "
_MEANT_FOR_USERS = (UserWarning, RuntimeWarning)
_CODE = """
import json, sys
sys.path[:] = json.loads(sys.argv.pop(1))
from lavis_dynrefer.lab.environment.probes import main
main(sys.argv[1:])
"""


def run_probes(names: Sequence[str], *, seconds: float = SECONDS) -> dict[str, Any]:
    """Probe -> what it found, or {"error": ...}; one that ends its process spares the others."""
    found: dict[str, Any] = {}
    while left := [name for name in names if name not in found]:
        lines, end = _run(left, seconds)
        found.update(lines)
        broken = next((name for name in left if name not in found), None)
        if broken is not None:
            found[broken] = {"error": end}
    return {name: found[name] for name in names}


def _run(names: Sequence[str], seconds: float) -> tuple[dict[str, Any], str]:
    """What a process printed, and how it ended."""
    path = json.dumps([folder for folder in sys.path if isinstance(folder, str)])
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CODE, path, *names],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        )
        output, errors = done.stdout, done.stderr.decode("utf-8", "replace").strip()
        end = f"the process ended with exit code {done.returncode}"
        end += f": {errors.splitlines()[-1]}" if errors else ""
    except subprocess.TimeoutExpired as error:
        output, end = error.stdout or b"", f"no answer within {seconds:g} s"
    lines = output.decode("utf-8", "replace").splitlines()
    marked = [line[len(_MARK) :] for line in lines if line.startswith(_MARK)]
    return dict(json.loads(line) for line in marked), end


def main(names: Sequence[str]) -> None:
    """Run probes and print their lines, each as soon as it is known."""
    for name in names:
        try:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("default")
                found = PROBES[name]()
            said = [str(one.message) for one in warned if one.category in _MEANT_FOR_USERS]
            if said:
                found["warnings"] = said
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(f"{_MARK}{json.dumps([name, found])}\n")
        sys.stdout.flush()


def torch_and_devices() -> dict[str, Any]:
    """Version and build of torch, and the devices it sees; memory in bytes."""
    import torch

    capability = getattr(torch.backends.cpu, "get_cpu_capability", lambda: None)
    found: dict[str, Any] = {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "rocm": getattr(torch.version, "hip", None),
        "instructions": capability(),
        "threads": torch.get_num_threads(),
        "devices": [],
    }
    if torch.cuda.is_available():
        found["cudnn"] = torch.backends.cudnn.version()
        found["devices"] = [_gpu(number) for number in range(torch.cuda.device_count())]
    for kind, backend in (("mps", torch.backends.mps), ("xpu", getattr(torch, "xpu", None))):
        if backend is not None and backend.is_available():
            found["devices"].append({"name": kind})
    return found


def _gpu(number: int) -> dict[str, Any]:
    import torch

    about = torch.cuda.get_device_properties(number)
    gpu: dict[str, Any] = {
        "name": about.name,
        "memory": about.total_memory,
        "capability": f"{about.major}.{about.minor}",
    }
    try:
        gpu["free"] = torch.cuda.mem_get_info(number)[0]
    except RuntimeError as error:  # in use by one process alone, or out of order
        gpu["error"] = str(error).splitlines()[0]
    return gpu


def lavis_import() -> dict[str, Any]:
    """Whether `import lavis` works, and whether it knows our model then."""
    from lavis.common.registry import registry

    return {
        "imports": True,
        "knows_dynrefer": "dynrefer" in list(registry.mapping["model_name_mapping"]),
    }


def weights() -> dict[str, Any]:
    """Part of the full model -> its path, size and who named it; None: it is not here."""
    from lavis_dynrefer.cli.weight_files.weights import part_places
    from lavis_dynrefer.models.weights.places import model_section

    return dict(part_places(model_section("flant5xl")))


def java() -> dict[str, Any]:
    """The Java that METEOR uses, and its version."""
    from lavis_dynrefer.metrics.java_tools import find_java

    path = find_java()
    done = subprocess.run([path, "-version"], capture_output=True, stdin=subprocess.DEVNULL)
    lines = done.stderr.decode("utf-8", "replace").splitlines()
    return {"path": path, "version": lines[0] if lines else f"exit code {done.returncode}"}


PROBES: dict[str, Callable[[], dict[str, Any]]] = {
    "java": java,
    "torch": torch_and_devices,
    "lavis_import": lavis_import,
    "weights": weights,
}
