"""What a training process sets once, before anything else: seeds, threads, memory."""

import logging

import monai
import torch

from medseg.data.limits import keep_freed_memory, useful_threads
from medseg.training.processes import rank

log = logging.getLogger(__name__)


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
    return max(1, min(most, useful_threads() // 2))
