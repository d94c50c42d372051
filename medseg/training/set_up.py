"""What a training process sets once, before anything else: seeds, threads, memory."""

import ctypes
import logging
import os
import sys

import monai
import torch

from medseg.training.processes import rank

log = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of `mallopt`. Source: glibc, malloc.h."""
KEPT_BYTES = 2**31 - 1
"""Freed memory that the process keeps: all of it."""


def set_up(seed: int = 0, deterministic: bool = False) -> None:
    """Prepare this process for training; for `initialize` in train.yaml.

    Global on purpose: a training owns its process. Seeds Python, numpy and torch (another seed a
    rank), lets cuDNN look for the fastest algorithms or, when deterministic, torch refuse those
    that do not repeat, and keeps freed memory in the process (see `keep_freed_memory`).

    Args:
        seed: Seed of rank 0.
        deterministic: The same losses in every run on the same machine and number of threads.
    """
    keep_freed_memory()
    monai.utils.set_determinism(seed=seed + rank(), use_deterministic_algorithms=None)
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cuda.matmul.allow_tf32 = not deterministic
    torch.backends.cudnn.allow_tf32 = not deterministic


def useful_workers(most: int = 8) -> int:
    """Return how many processes should prepare samples: half of the cores, at least one.

    Args:
        most: Never more than these.

    Returns:
        Number of processes.
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, min(most, cores // 2))


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory instead of giving every large block back to the kernel.

    Activations are freed and allocated again at every layer of every iteration; given back, they
    are faulted in page by page each time. Without effect on other C libraries.

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
