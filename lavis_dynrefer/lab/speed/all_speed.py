"""Checks, times and memory of one machine in a few minutes: the command for a borrowed GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from lavis_dynrefer.lab.benchmarks.resource_usage import Numbers
from lavis_dynrefer.lab.speed.model_speed import (
    Bench,
    SpeedOptions,
    measure_inference,
    measure_training,
)
from lavis_dynrefer.lab.speed.view_speed import measure_views

# The released code on an H100: real DCNv4 kernels, random weights of the full size, 64 regions.
RELEASED_ON_H100 = {"inference, 2 beams": 12.4, "inference, 5 beams": 12.5, "training": 79.7}


def measure_all(options: SpeedOptions, *, minutes: float) -> Numbers:
    """Answers with 2 and 5 beams, a training step, views; what does not fit the time is left out.

    Args:
        options: size, device and so on; its beams do not count.
        minutes: after which nothing more is begun.
    """
    begin = time.perf_counter()
    bench = Bench(options)
    results: Numbers = {"start": {"seconds to build": time.perf_counter() - begin}}

    def answers(beams: int) -> Numbers:
        chosen = replace(options, beams=beams)
        bench.ask(chosen)
        return measure_inference(chosen, bench)

    parts: dict[str, Callable[[], Numbers]] = {
        "inference, 2 beams": lambda: answers(2),
        "training": lambda: measure_training(options, bench),
        "inference, 5 beams": lambda: answers(5),
        "views": lambda: measure_views(repeats=options.repeats),
    }
    late = []
    for name, measure in parts.items():
        if time.perf_counter() - begin > 60 * minutes:
            late.append(name)
            continue
        for row, numbers in measure().items():
            results[f"{name}: {row}"] = numbers
    compared = options.size == "full" and bench.device.type == "cuda"
    for name, released in RELEASED_ON_H100.items() if compared else ():
        for row, numbers in results.items():
            if row.startswith(f"{name}: ") and "regions/s" in numbers:
                numbers["released code on an H100, regions/s"] = released
                numbers["times as fast"] = numbers["regions/s"] / released
    if late:
        results["left out, no time"] = {name: "" for name in late}
    results["end"] = {"minutes": (time.perf_counter() - begin) / 60}
    return results
