"""The report of an environment: gathered without ever failing, and as lines to paste."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from lavis_dynrefer.lab.environment import installed, probes, surroundings

Report = dict[str, Any]

_WIDTH = 14  # of the first column


def gather() -> Report:
    """Section -> what was found, or {"error": why not}; takes seconds and builds no model.

    Sizes are in bytes. The home folder is "~", secrets are only said to be set.
    """
    report: Report = {
        "package": _attempt(installed.package),
        "system": _attempt(surroundings.system),
        "libraries": _attempt(installed.libraries),
        "lavis": _attempt(installed.lavis),
        "extras": _attempt(installed.extras),
        "cache": _attempt(surroundings.cache),
        "variables": _attempt(lambda: surroundings.variables(os.environ)),
    }
    try:
        report.update(probes.run_probes(tuple(probes.PROBES)))
    except Exception as error:  # no process can be started
        report.update(dict.fromkeys(probes.PROBES, _failed(error)))
    tidy: Report = surroundings.without_private(report)
    return tidy


def as_text(report: Report) -> str:
    """The report as lines of a name and what was found."""
    lines = []
    for name, (section, words) in _LINES.items():
        found = report[section]
        text = f"not known: {found['error']}" if "error" in found else words(report)
        if text:
            lines.append(f"{name:<{_WIDTH}} {text}")
        lines += [f"{'':<{_WIDTH}} warning: {one}" for one in found.get("warnings", ())]
    return "\n".join(line.rstrip() for line in lines)


def _attempt(find: Callable[[], Any]) -> Any:
    try:
        return find()
    except Exception as error:  # whatever is broken here is what the report is for
        return _failed(error)


def _failed(error: Exception) -> Report:
    return {"error": f"{type(error).__name__}: {error}"}


def _package(report: Report) -> str:
    found = report["package"]
    parts = [found["version"]]
    if found.get("commit"):
        parts.append(f"commit {found['commit']}")
    how = "editable, " if found.get("editable") else ""
    parts.append(f"{how}{found['folder']}")
    return ", ".join(parts) + ("" if found["installed"] else " (not installed, found on the path)")


def _python(report: Report) -> str:
    found = report["system"]
    return f"{found['python']} ({found['implementation']}), {found['executable']}"


def _system(report: Report) -> str:
    return f"{report['system']['system']}, {report['system']['machine']}"


def _processor(report: Report) -> str:
    found = report["system"]
    cores = f"{found['usable_cores']} of {found['cores']} cores"
    memory = "" if found["memory"] is None else f", {_gib(found['memory'])} of memory"
    return f"{found['processor']}, {cores}{memory}; {' '.join(found['flags'])}".rstrip("; ")


def _torch(report: Report) -> str:
    found = report["torch"]
    build = f"CUDA {found['cuda']}" if found["cuda"] else "ROCm" if found["rocm"] else "CPU"
    cudnn = f", cuDNN {found['cudnn']}" if "cudnn" in found else ""
    cpu = f"{found['instructions']}, {found['threads']} threads"
    return f"{found['version']}, built for {build}{cudnn}; on the CPU {cpu}"


def _devices(report: Report) -> str:
    return (
        "; ".join(_device(one) for one in report["torch"]["devices"]) or "no GPU that torch can use"
    )


def _device(gpu: Mapping[str, Any]) -> str:
    if "memory" not in gpu:
        return str(gpu["name"])
    free = f"{_gib(gpu['free'])} free" if "free" in gpu else f"free memory unknown: {gpu['error']}"
    return f"{gpu['name']}, {_gib(gpu['memory'])} ({free}), compute {gpu['capability']}"


def _libraries(report: Report) -> str:
    found = report["libraries"]
    return ", ".join(f"{name} {found[name] or 'missing'}" for name in installed.LIBRARIES)


def _refused(report: Report) -> str:
    return str(report["libraries"].get("refused", ""))


def _lavis(report: Report) -> str:
    found, imported = report["lavis"], report["lavis_import"]
    if found["folder"] is None:
        return "not installed"
    hook = "read at start-up" if found["hook_read_at_start_up"] else "not read at start-up"
    if report["variables"].get(installed.SWITCH) == "0":
        hook = f"turned off by {installed.SWITCH}"
    works = f"does not import: {imported['error']}" if "error" in imported else "imports"
    if imported.get("knows_dynrefer") is False:
        works += ", but does not know DynRefer"
    return f"{found['version'] or 'of unknown version'}, {found['folder']}; {works}; hook {hook}"


def _pins(report: Report) -> str:
    unmet = report["lavis"]["unmet_pins"]
    return f"{len(unmet)} not met, which it bears: {', '.join(unmet)}" if unmet else ""


def _java(report: Report) -> str:
    return f"{report['java']['version']}, {report['java']['path']}"


def _cache(report: Report) -> str:
    found = report["cache"]
    state = "" if found["exists"] else "not created yet, "
    return f"{found['folder']}, {state}{_gib(found['free'])} free"


def _weights(report: Report) -> str:
    places = {name: place for name, place in report["weights"].items() if name != "warnings"}
    here = [f"{name}: {place}" for name, place in places.items() if place is not None]
    missing = [name for name, place in places.items() if place is None]
    return "; ".join([*here, *([f"not here: {', '.join(missing)}"] if missing else [])])


def _requirements(report: Report) -> str:
    return ", ".join(report["extras"].get("", ()))


def _extras(report: Report) -> str:
    found = {name: unmet for name, unmet in report["extras"].items() if name}
    complete = [name for name, unmet in found.items() if not unmet]
    others = [f"{name} ({', '.join(unmet)})" for name, unmet in found.items() if unmet]
    without = f"; without {', '.join(others)}" if others else ""
    return f"{', '.join(complete) or 'none'}{without}" if found else ""


def _variables(report: Report) -> str:
    return " ".join(f"{name}={value}" for name, value in report["variables"].items()) or "none"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


_LINES: dict[str, tuple[str, Callable[[Report], str]]] = {
    "lavis_dynrefer": ("package", _package),
    "Python": ("system", _python),
    "system": ("system", _system),
    "processor": ("system", _processor),
    "torch": ("torch", _torch),
    "GPUs": ("torch", _devices),
    "libraries": ("libraries", _libraries),
    "refused": ("libraries", _refused),
    "unmet": ("extras", _requirements),
    "LAVIS": ("lavis", _lavis),
    "LAVIS's pins": ("lavis", _pins),
    "Java": ("java", _java),
    "cache": ("cache", _cache),
    "weights": ("weights", _weights),
    "extras": ("extras", _extras),
    "variables": ("variables", _variables),
}
