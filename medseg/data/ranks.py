"""Which of several processes of one training this is, for work that they share."""

import os
from typing import Any

import torch.distributed as dist


def rank_and_world() -> tuple[int, int]:
    """Return the number of this process and how many there are: (0, 1) for one alone.

    torch is asked itself: the first question to `ignite.distributed` is answered by all processes
    together, and hangs when only one of them asks.
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def processes_of_this_machine() -> int:
    """Return how many processes of the training share the cores; `torchrun` says so."""
    _, world = rank_and_world()
    said = os.environ.get("LOCAL_WORLD_SIZE", "")
    return min(int(said), world) if said.isdigit() and int(said) > 0 else world


def gathered(thing: Any) -> list[Any]:
    """Wait for all processes and return what each of them holds; every process must call it.

    Args:
        thing: Anything that can be pickled.

    Returns:
        One entry a process, in order of rank.
    """
    _, world = rank_and_world()
    if world == 1:
        return [thing]
    things: list[Any] = [None] * world
    dist.all_gather_object(things, thing)
    return things
