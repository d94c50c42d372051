"""What the processes of one training agree on."""

from typing import Any

import torch
import torch.distributed as dist


def rank() -> int:
    """Return the number of this process, 0 when it is the only one.

    torch is asked itself: the first question to `ignite.distributed` is answered by all processes
    together, and hangs when only one of them asks.
    """
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes of this training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def several_processes() -> bool:
    """Return whether this is one of several processes of one training."""
    return world_size() > 1


def largest(values: list[float], device: torch.device) -> list[float]:
    """Return the largest of each value over all processes; every process must call it.

    Args:
        values: Finite numbers of this process.
        device: Device of this process, where NCCL wants its tensors.

    Returns:
        As many numbers, the same in every process.
    """
    if not several_processes():
        return values
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return [float(value) for value in tensor.tolist()]


def gathered(thing: Any) -> list[Any]:
    """Return what each process holds, in order of rank; every process must call it.

    Unlike MONAI's gathering of tensors this also works where a process holds nothing.

    Args:
        thing: Anything that can be pickled.

    Returns:
        One entry a process.
    """
    if not several_processes():
        return [thing]
    things: list[Any] = [None] * world_size()
    dist.all_gather_object(things, thing)
    return things


def leave_processes() -> None:
    """End this process's part in a group of several, if it is in one."""
    if several_processes():
        dist.destroy_process_group()
