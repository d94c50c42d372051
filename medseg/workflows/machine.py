"""What this machine has: processor, threads, memory, accelerators."""

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import psutil

from medseg.bundle.find import cache_folder
from medseg.data import limits

CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
"""Instruction sets that decide how fast a network runs on the processor."""

CPUINFO = Path("/proc/cpuinfo")

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "SLURM_CPUS_PER_TASK",
)


def describe_cpu() -> dict[str, Any]:
    """Describe the processor.

    Returns:
        Architecture, system, the instruction sets that matter, and what torch makes of them.
    """
    import torch  # noqa: PLC0415 -- a broken torch is what `doctor` is asked about

    flags = _cpu_flags()
    return {
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "features": [name for name in CPU_FEATURES if name in flags],
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _cpu_flags() -> frozenset[str]:
    if not CPUINFO.is_file():  # other systems than Linux
        return frozenset()
    for line in CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def describe_threads() -> dict[str, Any]:
    """Compare the cores there are with those that this process may use.

    Returns:
        Cores, affinity, the control group's limit in cores (None without one), torch's threads,
        the environment variables that steer threads, and the number worth using.
    """
    import torch  # noqa: PLC0415 -- a broken torch is what `doctor` is asked about

    cores = os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if sys.platform == "linux" else cores
    limit = limits.cgroup_cores()
    variables = [f"{name}={os.environ[name]}" for name in THREAD_VARIABLES if name in os.environ]
    useful = limits.useful_threads()
    return {
        "cores": cores,
        "cores_physical": psutil.cpu_count(logical=False),
        "affinity": affinity,
        "cgroup_limit": limit,
        "torch_threads": torch.get_num_threads(),
        "environment": variables,
        "worth_using": useful,
        "too_many": torch.get_num_threads() > useful,
    }


def describe_memory(output: Path) -> dict[str, Any]:
    """Describe memory and disks.

    Args:
        output: Folder that results will be written to; it need not exist.

    Returns:
        Memory, free memory, the control group's limit (None without one), free space and
        writability of the output and cache folders; bytes.
    """
    memory = psutil.virtual_memory()
    document: dict[str, Any] = {
        "total_bytes": memory.total,
        "available_bytes": memory.available,
        "cgroup_bytes_limit": limits.cgroup_bytes(),
    }
    for name, folder in (("output", output), ("cache", cache_folder())):
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        document[f"{name}_folder"] = str(folder)
        document[f"{name}_writable"] = os.access(existing, os.W_OK)
        document[f"{name}_free_bytes"] = shutil.disk_usage(existing).free
    return document


def describe_devices() -> dict[str, Any]:
    """Describe what networks can run on.

    Returns:
        CUDA devices with their memory, and why there are none; whether MPS and OpenVINO are there.
    """
    import torch  # noqa: PLC0415 -- a broken torch is what `doctor` is asked about

    cuda = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            gib = properties.total_memory / 2**30
            cuda.append(f"cuda:{index} {properties.name}, {gib:.1f} GiB")
    return {
        "cuda": cuda,
        "torch_built_for_cuda": torch.version.cuda,
        "mps": torch.backends.mps.is_available(),
        "default": "cuda" if cuda else "cpu",
    }
