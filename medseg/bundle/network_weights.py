"""Put trained weights into a network, without running what a file may hold besides."""

import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg.errors import BundleError

HOLDERS = ("model", "state_dict", "network")
"""Keys under which checkpoints hold a state dict among other things."""


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

    Args:
        path: The file.
        bundle: Name of the bundle, for messages.

    Returns:
        The network with its weights.

    Raises:
        BundleError: If it is no TorchScript (`bad-weights`).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch wants torch.export in its place
            network: torch.nn.Module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        msg = f"{path.name} of {bundle} must be TorchScript that torch can load: {error}"
        raise BundleError(msg.splitlines()[0], code="bad-weights") from error
    return network
