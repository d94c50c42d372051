"""How much memory a case takes, foreseen before its windows are run."""

import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch

from medseg.data.limits import cgroup_bytes, reusable_bytes
from medseg.errors import InputError
from medseg.inference.stream import Streaming
from medseg.inference.windows import Windows

log = logging.getLogger(__name__)

GIB = 1 << 30

LARGEST_SUMS_BYTES = 2 * GIB
"""Sums over windows that would be larger are kept in float16, and then of strips of the image."""

STRIPS = (1, 2, 4)
"""Strips that an image is cut into where memory is short; windows on a cut are run twice."""

USABLE_SHARE = 0.9
"""Of the memory that is free, where no budget is given."""


@dataclass(frozen=True)
class Needs:
    """Memory that a case takes beyond weights and source; bytes.

    Attributes:
        image: On the network's grid, with what is noted there of how sure the networks are.
        sums: Of the class maps of a row of windows, of all networks.
        windows: What goes into a network and comes out of it.
        mask: On the source grid.
        activations: Of the network, where they were measured.
    """

    image: int
    sums: int
    windows: int
    mask: int
    activations: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.image + self.sums + self.windows + self.mask + self.activations


@dataclass(frozen=True)
class Foreseen:
    """How a case is run, and the memory that takes.

    Attributes:
        how: How windows are run and added up.
        needs: Memory of the computer.
        gpu: Memory of the GPU; None without one.
        budget_bytes: What was to be kept to.
    """

    how: Streaming
    needs: Needs
    gpu: Needs | None
    budget_bytes: int

    def __str__(self) -> str:
        gpu = "" if self.gpu is None else f" and {_amount(self.gpu.total)} of the GPU"
        return f"about {_amount(self.needs.total)}{gpu}"

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {
            "estimate_bytes": self.needs.total,
            "gpu_estimate_bytes": None if self.gpu is None else self.gpu.total,
            "budget_bytes": self.budget_bytes,
            "sums_bytes": self.needs.sums if self.gpu is None else self.gpu.sums,
            "sums_dtype": "float16" if self.how.half else "float32",
            "strips": self.how.strips,
            "sums_on": str(self.how.device or "the network's device"),
        }


@dataclass(frozen=True)
class Load:
    """What is asked of the networks of one bundle for one case.

    Attributes:
        windows: Where windows lie.
        channels: Of the image.
        outputs: Class maps of each network.
        networks: How many there are.
        activation_bytes: Of one window, see `activation_bytes`.
        mean: Probabilities are averaged.
        tta: Mirrorings are averaged.
        streamed: Windows are stitched row by row; else class maps exist as a whole.
        libraries: Library code and second copies of weights, while the way to run is chosen;
            bytes.
        noted: Bytes a voxel that are kept of how sure the networks are.
    """

    windows: Windows
    channels: int
    outputs: int
    networks: int = 1
    activation_bytes: int = 0
    mean: bool = False
    tta: bool = False
    streamed: bool = True
    libraries: int = 0
    noted: int = 3

    def needs(self, how: Streaming) -> Needs:
        """Return the memory it takes; without the mask.

        Args:
            how: How windows are run and added up.

        Returns:
            Bytes.
        """
        windows = self.windows
        strip = windows.widest_strip(how.strips)
        row = strip.row_voxels(strip.cheapest_walk)  # as restoring chooses
        # probabilities of the planes that a row of windows finishes
        mean = 4 * self.outputs * row if self.mean else 0
        voxels = how.batch_size * math.prod(windows.size)
        a_value = 2 if how.half and self.streamed else 4
        # what goes in, what comes out, and what is kept of windows of one value
        maps = self.outputs * (1 + how.skip_empty + 2 * self.tta)
        return Needs(
            image=4 * self.channels * math.prod(windows.padded_shape)
            + self.noted * math.prod(windows.shape),
            # beside the sums the weights; and planes that restoring still wants, see SlabReader
            sums=self.networks * row * (self.outputs * a_value + 4) + mean,
            windows=4 * voxels * (self.channels + maps),
            mask=0,
            activations=how.batch_size * self.activation_bytes + self.libraries,
        )


def foresee(
    loads: Sequence[Load],
    source_shape: Sequence[int],
    how: Streaming,
    *,
    budget_bytes: int,
    gpu_budget_bytes: int | None = None,
) -> Foreseen:
    """Say how much memory a case takes, and make it take less where that is too much.

    Sums are kept in float32; in float16 where they would be large or the budget is small; then of
    one strip of the image after the other; and off the GPU where they do not fit it.

    Args:
        loads: One a bundle.
        source_shape: Of the mask; voxels.
        how: How windows are run.
        budget_bytes: Memory of the computer that may be used beyond what is in use.
        gpu_budget_bytes: Memory of the GPU that may be used; None where there is none.

    Returns:
        What is foreseen.

    Raises:
        InputError: If it cannot be made to fit (`too-large`).
    """
    halves = [replace(how, half=True, strips=strips) for strips in STRIPS]
    ways = [how, *halves]
    if gpu_budget_bytes is not None:
        ways += [replace(half, device=torch.device("cpu")) for half in halves]
    else:
        while (
            len(ways) > 1 and sum(load.needs(ways[0]).sums for load in loads) > LARGEST_SUMS_BYTES
        ):
            ways = ways[1:]
    foreseen: Foreseen | None = None
    for way in ways:
        needs = [load.needs(way) for load in loads]
        total = Needs(
            image=sum(n.image for n in needs),
            sums=sum(n.sums for n in needs),
            windows=max(n.windows for n in needs),
            mask=(1 if max(load.outputs for load in loads) <= 256 else 2) * math.prod(source_shape),
            activations=max(n.activations for n in needs),
        )
        gpu = None
        if gpu_budget_bytes is not None:
            on_gpu = way.device is None
            gpu = replace(total, image=0, mask=0, sums=total.sums if on_gpu else 0)
            total = replace(total, activations=0, sums=0 if on_gpu else total.sums)
        foreseen = Foreseen(way, total, gpu, budget_bytes)
        if total.total <= budget_bytes and (
            gpu is None or gpu_budget_bytes is None or gpu.total <= gpu_budget_bytes
        ):
            return foreseen
    assert foreseen is not None
    short = [f"{_amount(foreseen.needs.total)} of {_amount(budget_bytes)}"]
    if foreseen.gpu is not None and gpu_budget_bytes is not None:
        gpu_short = f"{_amount(foreseen.gpu.total)} of {_amount(gpu_budget_bytes)}"
        short.append(f"{gpu_short} of the GPU")
    msg = (
        f"case of {' x '.join(map(str, source_shape))} voxels must fit in memory, and is foreseen"
        f" to take {' and '.join(short)}. Close other programs, or raise --memory-gb."
    )
    raise InputError(msg, code="too-large")


def _amount(count: int) -> str:
    return f"{count / GIB:.0f} GiB" if count >= 10 * GIB else f"{count / (1 << 20):.0f} MiB"


def activation_bytes(network: torch.nn.Module, shape: Sequence[int]) -> int:
    """Return about how much memory a network takes for one window, from the sizes of its layers.

    At the finest level of a U-Net its skip connection, their concatenation, the output of a layer
    and that of the next are there at once: five times the largest output of a layer.

    Args:
        network: Any.
        shape: (C, *spatial) of the window.

    Returns:
        Bytes; 0 where the sizes cannot be found out without running it.
    """
    largest = 0

    def see(module: torch.nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001
        nonlocal largest
        if isinstance(output, torch.Tensor):
            largest = max(largest, output.numel() * 4)

    try:
        ghost = copy.deepcopy(network).to("meta")
        for module in ghost.modules():
            module.register_forward_hook(see)
        with torch.inference_mode():
            ghost(torch.empty((1, *shape), device="meta"))
    except Exception:  # networks do in their forward pass what they like
        log.debug("sizes of layers are not known", exc_info=True)
        return 0
    return 5 * largest


def free_bytes() -> int:
    """Return the memory that may be used: what is free, and what the control group leaves.

    Returns:
        Bytes.
    """
    own = psutil.Process().memory_info().rss
    free = int(psutil.virtual_memory().available)
    limit = cgroup_bytes()
    if limit is not None:
        free = min(free, limit - own)
    # what earlier cases used is kept for the next, see `keep_freed_memory`
    return max(0, int(USABLE_SHARE * (free + min(reusable_bytes(), own))))


def free_gpu_bytes(device: torch.device) -> int | None:
    """Return the memory of a GPU that may be used.

    Args:
        device: Any.

    Returns:
        Bytes; None for a device that is no GPU.
    """
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return int(USABLE_SHARE * free)
