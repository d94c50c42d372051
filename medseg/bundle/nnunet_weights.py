"""Weights of nnU-Net v2's checkpoints, read without running anything in them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg.bundle.nnunet_model import NnunetModel
from medseg.errors import BundleError
from medseg.networks import NnunetUNet, nnunet_ensemble

HEAD = "decoder.head."
_HEADS = "decoder.seg_layers."
_TWICE = ("decoder.encoder.", ".all_modules.")
"""nnU-Net's modules hold these weights a second time."""

_PREFIXES = ("module.", "_orig_mod.")
"""What distributed training and torch.compile put before the names of weights."""

NUMBERS = "?bBhHiIlLqQefd"
"""Numpy's codes of the numbers that a checkpoint may hold."""


@dataclass(frozen=True)
class NnunetWeights:
    """The network of a model with its weights.

    Attributes:
        network_def: `_target_` and arguments, with axes in the order of the image's.
        state: Its state dict.
        mirror_axes: Axes of the image that may be mirrored at inference.
        folds: Those it is made of.
    """

    network_def: dict[str, Any]
    state: dict[str, torch.Tensor]
    mirror_axes: tuple[int, ...]
    folds: tuple[str, ...]


def read_nnunet_weights(model: NnunetModel) -> NnunetWeights:
    """Read the weights of a model's folds and turn them to the axes of the image.

    A 2D network of volumes becomes a 3D one whose kernels are one voxel thick across its slices.
    Heads of deep supervision are left out.

    Args:
        model: The model.

    Returns:
        The network with its weights.

    Raises:
        BundleError: If a checkpoint cannot be loaded safely (`bad-weights`), is of another
            configuration, or does not fit the plans (`weights-mismatch`).
    """
    options = _turned(model)
    states, mirrored = [], []
    for path in model.checkpoints.values():
        checkpoint = _loaded(path)
        _require_configuration(checkpoint, model, path)
        state = _own_names(checkpoint["network_weights"])
        state = {name: _turned_weight(value, model) for name, value in state.items()}
        _require_fit(NnunetUNet(**options), state, path)
        states.append(state)
        mirrored.append(checkpoint.get("inference_allowed_mirroring_axes"))
    name = "NnunetUNet"
    if len(states) > 1:
        options = {"folds": len(states), **options}
        name = "nnunet_ensemble"
        joined = {
            f"members.{number}.{key}": value
            for number, state in enumerate(states)
            for key, value in state.items()
        }
        nnunet_ensemble(**options).load_state_dict(joined)
    return NnunetWeights(
        network_def={"_target_": f"medseg.networks.{name}", **options},
        state=joined if len(states) > 1 else states[0],
        mirror_axes=_mirror_axes(mirrored, model),
        folds=tuple(model.checkpoints),
    )


def stated_configuration(path: Path) -> str:
    """Return the configuration that a checkpoint says it was trained as.

    Args:
        path: The checkpoint.

    Returns:
        Its name; empty where it says none.

    Raises:
        BundleError: If the checkpoint cannot be loaded safely (`bad-weights`).
    """
    return str((_loaded(path).get("init_args") or {}).get("configuration", ""))


def _loaded(path: Path) -> Mapping[str, Any]:
    """Load a checkpoint with nothing but tensors and numbers allowed in it."""
    try:
        with torch.serialization.safe_globals(_numbers_of_numpy()):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several kinds on a damaged file
        named = re.search(r"GLOBAL (\S+)", str(error))
        first = str(error).strip().partition("\n")[0]
        reason = f"it names {named[1]}" if named else first or type(error).__name__
        msg = (
            "checkpoint must hold tensors and numbers alone, so that it can be loaded safely, got"
            f" {path.parent.name}/{path.name}: {reason}."
        )
        raise BundleError(msg, code="bad-weights") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("network_weights"), dict):
        msg = (
            "checkpoint must be one of nnU-Net v2 with network_weights, got"
            f" {path.parent.name}/{path.name} without."
        )
        raise BundleError(msg, code="bad-weights")
    return checkpoint


def _numbers_of_numpy() -> list[Any]:
    """Return what numpy names where it pickles numbers and arrays of them; objects not."""
    multiarray = np._core.multiarray  # type: ignore[attr-defined]
    makers = [
        (getattr(multiarray, name), f"numpy.{core}.multiarray.{name}")
        for name in ("scalar", "_reconstruct")
        for core in ("core", "_core")
    ]
    return [np.dtype, np.ndarray, *makers, *(type(np.dtype(code)) for code in NUMBERS)]


def _require_configuration(checkpoint: Mapping[str, Any], model: NnunetModel, path: Path) -> None:
    stated = (checkpoint.get("init_args") or {}).get("configuration", model.configuration)
    if stated != model.configuration:
        msg = (
            f"checkpoint must be of the configuration {model.configuration!r} that the folder is"
            f" named after, got one of {stated!r} in {path.parent.name}/{path.name}."
        )
        raise BundleError(msg, code="weights-mismatch")


def _own_names(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights that inference needs, by the names that `NnunetUNet` has for them."""
    plain = {}
    for name, value in weights.items():
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)  # noqa: PLW2901
        plain[name] = value
    last = max((int(n.split(".")[2]) for n in plain if n.startswith(_HEADS)), default=0)
    head = f"{_HEADS}{last}."
    result = {}
    for name, value in plain.items():
        if any(part in name for part in _TWICE):
            continue
        if name.startswith(head):
            result[name.replace(head, HEAD)] = value
        elif not name.startswith(_HEADS):
            result[name] = value
    return result


def _turned(model: NnunetModel) -> dict[str, Any]:
    """Return the arguments of the network with their axes in the order of the image's."""
    options = dict(model.network)
    options["spatial_dims"] = model.dims
    for key in ("kernel_sizes", "strides"):
        options[key] = [model.by_axis(sizes, 1) for sizes in options[key]]
    return options


def _turned_weight(weight: torch.Tensor, model: NnunetModel) -> torch.Tensor:
    dims = len(model.patch_size)
    if weight.ndim != dims + 2:  # what is not a kernel has no axes
        return weight.clone()
    if dims < model.dims:
        weight = weight.unsqueeze(2)
    places = [0 if axis is None else axis + model.dims - dims for axis in model.axes]
    return weight.permute(0, 1, *(place + 2 for place in places)).contiguous().clone()


def _require_fit(network: NnunetUNet, state: Mapping[str, torch.Tensor], path: Path) -> None:
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        msg = (
            f"weights of {path.parent.name}/{path.name} must fit the network of plans.json, got"
            f" others: {' '.join(lines)[:200]}"
        )
        raise BundleError(msg, code="weights-mismatch") from error


def _mirror_axes(found: Sequence[Any], model: NnunetModel) -> tuple[int, ...]:
    """Return the axes of the image that every fold may be mirrored along."""
    common = set.intersection(*({int(axis) for axis in axes or ()} for axes in found))
    return tuple(place for place, axis in enumerate(model.axes) if axis in common)
