"""What this process may use of the machine: cores and memory. Nothing heavy is imported."""

import ctypes
import os
import sys
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")

NO_LIMIT_BYTES = 1 << 60
"""Control groups without a memory limit report a number above this one."""

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of `mallopt`. Source: glibc, malloc.h."""

KEPT_BYTES = 2**31 - 1
"""Freed memory that the process keeps: all of it."""


def useful_threads() -> int:
    """Return how many threads are worth using.

    Returns:
        `OMP_NUM_THREADS` where it is set; else the cores this process may run on, of those the
        control group's and SLURM's share.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    limits = [cores]
    if (group := cgroup_cores()) is not None:
        limits.append(int(group))
    task = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if task.isdigit():
        limits.append(int(task))
    return max(1, min(limits))


def cgroup_cores(root: Path = CGROUP) -> float | None:
    """Return how many cores the control group allows, versions 1 and 2.

    Args:
        root: Where control groups are mounted.

    Returns:
        Cores, or None without a limit.
    """
    if text := _read(root / "cpu.max"):
        quota, _, period = text.partition(" ")
        return None if quota == "max" else int(quota) / int(period)
    quota, period = (_read(root / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    if not quota or not period or int(quota) <= 0:
        return None
    return int(quota) / int(period)


def cgroup_bytes(root: Path = CGROUP) -> int | None:
    """Return how much memory the control group allows, versions 1 and 2.

    Args:
        root: Where control groups are mounted.

    Returns:
        Limit in bytes, or None without one.
    """
    text = _read(root / "memory.max") or _read(root / "memory" / "memory.limit_in_bytes")
    if not text or text == "max" or int(text) >= NO_LIMIT_BYTES:
        return None
    return int(text)


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory instead of giving every large block back to the kernel.

    Activations are freed and allocated again at every layer of a network; given back, they are
    faulted in page by page each time. The process then holds what it once needed at its peak.
    Without effect on other C libraries.

    Returns:
        Whether it was set.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl has none
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))


class _HeapState(ctypes.Structure):
    """`struct mallinfo2` of glibc."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
            "fordblks", "keepcost",
        )
    ]  # fmt: skip


class _Freed:
    """Memory that was freed, and is still with the C library."""

    without_pages = 0
    """Of it, what had been given back to the kernel when that was last asked for; bytes."""

    @staticmethod
    def size() -> int:
        """Return the bytes; 0 where the C library does not say."""
        try:
            state_of = ctypes.CDLL(None).mallinfo2
        except (AttributeError, OSError):  # glibc before 2.33, and others
            return 0
        state_of.restype = _HeapState
        return int(state_of().fordblks)


def reusable_bytes() -> int:
    """Return how much memory was freed, and is kept by the C library for the process.

    Returns:
        Bytes, rather too few after `give_back_freed_memory`; 0 where the C library does not say.
    """
    return max(0, _Freed.size() - _Freed.without_pages)


def give_back_freed_memory() -> None:
    """Give what is kept of freed memory back to the kernel, once.

    For a step that needs other memory than the one before: what is kept lies in pieces, and the
    process would hold both. Without effect on other C libraries than glibc.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return
    trim(0)
    _Freed.without_pages = _Freed.size()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
