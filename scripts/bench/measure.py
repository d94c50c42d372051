"""One measurement: a child process that times its work and reports its peak memory."""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = (
    "medseg",
    "numpy",
    "pydicom",
    "nibabel",
    "SimpleITK",
    "monai",
    "torch",
    "isal",
    "dcm2niix",
    "openvino",
    "onnx",
    "onnxruntime",
    "scikit-image",
)


def resident_mb() -> float:
    """Return the resident memory of this process; MB."""
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def peak_mb() -> float:
    """Return the largest resident memory of this process so far; MB.

    Not what `getrusage` says: that begins with the memory of the process that started this one.
    """
    with Path("/proc/self/status").open() as file:
        return next(int(line.split()[1]) * 1024 / 1e6 for line in file if line.startswith("VmHWM"))


def peak_of_children_mb() -> float:
    """Return the largest resident memory of a process that this one waited for; MB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6


def report(work: Callable[[], Any], *, children: bool = False) -> None:
    """Run the work once, then print time and memory as JSON for `measure`."""
    before = resident_mb()
    started = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - started
    peak = max(peak_mb(), peak_of_children_mb() if children else 0)
    print(json.dumps({"seconds": seconds, "before_mb": before, "peak_mb": peak}))
    del result


def measure(commands: dict[str, list[str]], rounds: int) -> dict[str, dict[str, Any]]:
    """Run each command in turn, several rounds; medians, so that noise hits all alike.

    Args:
        commands: Name to command line; each prints what `report` prints.
        rounds: Times each is run.

    Returns:
        Name to median, smallest and largest seconds and largest memory.
    """
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for number in range(rounds):
        for name, command in commands.items():
            print(f"round {number + 1}/{rounds}: {name}", file=sys.stderr)
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"  failed: {done.stderr.strip()[-300:]}", file=sys.stderr)
                continue
            runs[name].append(json.loads(done.stdout.strip().splitlines()[-1]))
    return {
        name: {
            "median_s": statistics.median(run["seconds"] for run in results),
            "min_s": min(run["seconds"] for run in results),
            "max_s": max(run["seconds"] for run in results),
            "peak_mb": max(run["peak_mb"] for run in results),
            "added_mb": max(run["peak_mb"] - run["before_mb"] for run in results),
            "runs": len(results),
        }
        for name, results in runs.items()
        if results
    }


def machine() -> dict[str, Any]:
    """Return what the figures depend on: cores, memory, versions."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = version(name)
        except ModuleNotFoundError:
            installed[name] = None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory, 1),
        "python": platform.python_version(),
        "packages": installed,
    }
