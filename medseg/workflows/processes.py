"""Which of several processes of one training this is: started by medseg, torchrun or Slurm."""

import os
import re
from collections.abc import Mapping


def world_of_environment() -> int:
    """Return how many processes were started for this training."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank_of_environment() -> int:
    """Return the number of this process among them."""
    return int(os.environ.get("RANK", "0"))


def join_slurm(environment: Mapping[str, str]) -> dict[str, str]:
    """Translate the variables of `srun` into those that torch wants.

    Args:
        environment: Variables of this process.

    Returns:
        Variables to set; none outside of a Slurm step of several tasks (a batch script itself is
        one process, whatever it was given), or where torchrun has set its own.

    Source:
        `srun` manual, section "Output environment variables".
    """
    tasks = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS") or "1"
    if (
        "RANK" in environment
        or int(tasks) < 2
        or not environment.get("SLURM_STEP_ID", "").isdigit()
        or "SLURM_PROCID" not in environment
    ):
        return {}
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST", "")
    job = int(re.sub(r"\D", "", environment.get("SLURM_JOB_ID", "0")) or 0)
    here = re.match(r"\d+", environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    return {
        "RANK": environment["SLURM_PROCID"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "WORLD_SIZE": tasks,
        **({"LOCAL_WORLD_SIZE": here.group()} if here else {}),
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
        >>> first_node("node7,node9")
        'node7'
    """
    match = re.match(r"([^,\[]+)(?:\[([^\]]+)\])?", nodes)
    if match is None:
        return "localhost"
    name, numbers = match.groups()
    return name + re.split(r"[,-]", numbers)[0] if numbers else name
