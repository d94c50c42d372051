"""Put trained weights into a network, without running what a file may hold besides."""

import re
import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg.errors import BundleError

HOLDERS = ("model", "state_dict", "network")
"""Keys under which checkpoints hold a state dict among other things."""

BEYOND_COMPUTING = re.compile(
    r"\b(from_file|save)\b|\btorch\s*\.\s*classes\b"
    r"|\bops\s*\.(?!\s*(aten|prims?|quantized|torchvision)\b)"
    r"|\\[0-7x]"
)
"""In the code of TorchScript: what reads or writes files, what other libraries add to torch, and
names written by numbers of characters, which could hide these."""


def numpy_tables() -> AbstractContextManager[None]:
    """Let torch read arrays of numbers where it reads tensors and plain values alone.

    Files beside the weights, such as a searched architecture, hold them; of numpy before and
    after version 2, which renamed what makes an array. Arrays of objects stay refused.

    Returns:
        A context in which `torch.load(..., weights_only=True)` reads them.
    """
    rebuild: Any = np.empty(0).__reduce__()[0]
    scalar: Any = np.float64(0).__reduce__()[0]
    named = [
        (function, f"numpy.{core}.multiarray.{function.__name__}")
        for function in (rebuild, scalar)
        for core in ("core", "_core")
    ]
    kinds = {type(np.dtype(kind)) for kind in np.typecodes["AllInteger"] + np.typecodes["Float"]}
    return torch.serialization.safe_globals(
        [*named, np.ndarray, np.dtype, *kinds, type(np.dtype(bool))]
    )


def load_weights(network: torch.nn.Module, bundle: str, path: Path, *, strict: bool = True) -> None:
    """Load a state dict.

    Args:
        network: Gets the weights.
        bundle: Name of the bundle, for messages.
        path: The file; only tensors and plain values in it are read.
        strict: All tensors of the network must be there, and no others.

    Raises:
        BundleError: If it is no state dict (`bad-weights`), or another network's
            (`weights-mismatch`).
    """
    try:
        weights: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several kinds on a damaged file
        msg = f"weights of {bundle} must be a state dict that torch can load safely: {error}"
        raise BundleError(msg.splitlines()[0], code="bad-weights") from error
    if not isinstance(weights, dict) or not weights:
        msg = f"weights of {bundle} must be a state dict, got {type(weights).__name__}."
        raise BundleError(msg, code="bad-weights")
    for holder in HOLDERS:
        if isinstance(weights.get(holder), dict):
            weights = weights[holder]
            break
    try:
        network.load_state_dict(weights, strict=strict)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        msg = (
            f"weights of {bundle} must fit its network_def, got another network's:"
            f" {' '.join(lines)[:200]}"
        )
        raise BundleError(msg, code="weights-mismatch") from error


def load_script(path: Path, bundle: str) -> torch.nn.Module:
    """Load a network as TorchScript, which is operations of torch and no Python.

    Some of these operations read and write files: it is looked for them before any code runs,
    since some of it does as the file is loaded.

    Args:
        path: The file.
        bundle: Name of the bundle, for messages.

    Returns:
        The network with its weights.

    Raises:
        BundleError: If it is no TorchScript, or does more than compute (`bad-weights`).
    """
    try:
        found = _beyond_computing(path)
        if found:
            msg = f"{path.name} of {bundle} must compute alone, got {found!r} in its code."
            raise BundleError(msg, code="bad-weights")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch wants torch.export in its place
            network: torch.nn.Module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        msg = f"{path.name} of {bundle} must be TorchScript that torch can load: {error}"
        raise BundleError(msg.splitlines()[0], code="bad-weights") from error
    return network


def _beyond_computing(path: Path) -> str:
    """Return the first word of the code of TorchScript that does more than compute, or nothing."""
    reader = torch._C.PyTorchFileReader(str(path))  # that which torch itself loads it with
    for name in reader.get_all_records():
        if name.endswith(".py"):
            text = reader.get_record(name).decode(errors="replace")
            if found := BEYOND_COMPUTING.search(text):
                return found[0]
    return ""
