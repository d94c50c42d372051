"""Several processes for one training: started here, by torchrun, or by Slurm."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType

from medseg.errors import UsageError

FORWARDED = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name)
)
GRACE_S = 30.0
"""What the others get to end by themselves when one process has failed."""
POLL_S = 0.2


def world_of_environment() -> int:
    """Return how many processes torchrun, Slurm or `launch` started for this training."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank_of_environment() -> int:
    """Return the number of this process among them."""
    return int(os.environ.get("RANK", "0"))


def join_slurm(environment: Mapping[str, str]) -> dict[str, str]:
    """Translate the variables of `srun` into those that torch wants.

    Args:
        environment: Variables of this process.

    Returns:
        Variables to set; none outside of a Slurm step of several tasks, or where torchrun has set
        its own.
    """
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1") or 1)
    if tasks < 2 or "RANK" in environment or not environment.get("SLURM_STEP_ID", "").isdigit():
        return {}
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST", "")
    job = int(re.sub(r"\D", "", environment.get("SLURM_JOB_ID", "0")) or 0)
    return {
        "RANK": environment["SLURM_PROCID"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "WORLD_SIZE": str(tasks),
        "MASTER_ADDR": environment.get("MASTER_ADDR") or first_node(nodes),
        "MASTER_PORT": environment.get("MASTER_PORT") or str(20_000 + job % 20_000),
    }


def first_node(nodes: str) -> str:
    """Return the first name of a Slurm list of nodes.

    Args:
        nodes: For example `gpu[03-05,9],cpu1`.

    Returns:
        The name.

    Examples:
        >>> first_node("gpu[03-05,9],cpu1")
        'gpu03'
        >>> first_node("node7")
        'node7'
    """
    match = re.match(r"([^,\[]+)(?:\[([^\]]+)\])?", nodes)
    if match is None:
        return "localhost"
    name, numbers = match.groups()
    return name + re.split(r"[,-]", numbers)[0] if numbers else name


def launch(arguments: Sequence[str], count: int) -> int:
    """Run a command in several processes of this machine, and wait for all.

    Signals go on to all of them. When one fails the others are ended.

    Args:
        arguments: Command line after `python -m medseg`.
        count: Number of processes.

    Returns:
        Exit code of the first process that failed, else 0.

    Raises:
        UsageError: If there are not as many devices.
    """
    if count < 1:
        msg = f"gpus must be at least 1, got {count}."
        raise UsageError(msg)
    common = {
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")
        or str(max(1, (os.cpu_count() or 1) // count)),
    }
    children = []
    for rank in range(count):
        own = {**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = [sys.executable, "-m", "medseg", *arguments]
        children.append(subprocess.Popen(command, env=own))
    previous = {number: signal.signal(number, _forward_to(children)) for number in FORWARDED}
    try:
        return _wait(children)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def leave_processes() -> None:
    """End this process's part in a group of several, if it is in one."""
    if "torch" not in sys.modules:
        return
    import torch.distributed as dist  # noqa: PLC0415

    if dist.is_available() and dist.is_initialized() and world_of_environment() > 1:
        dist.destroy_process_group()


def _forward_to(children: Sequence[subprocess.Popen[bytes]]):  # type: ignore[no-untyped-def]
    def forward(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    return forward


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> int:
    while True:
        codes = [child.poll() for child in children]
        failed = [code for code in codes if code]
        if failed:
            _end(children)
            return failed[0] if failed[0] > 0 else 1
        if all(code == 0 for code in codes):
            return 0
        time.sleep(POLL_S)


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Give the others, who may wait for the one that is gone, a while, then kill them."""
    until = time.monotonic() + GRACE_S
    for child in children:
        if child.poll() is None:
            child.terminate()
    for child in children:
        try:
            child.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
