"""Weights of an encoder: from a local file, or from torchvision where the user asks for them."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medseg.errors import BundleError

log = logging.getLogger(__name__)

IMAGENET = "imagenet"
"""In place of a file: torchvision's weights of the encoder, its first that were published."""

CLASSIFIERS = ("classifier.", "fc.")  # what ImageNet's networks end in, by torchvision's names
COUNTS = "num_batches_tracked"  # of batch normalisation: files of before 2018 have none of them
SHOWN = 4  # tensors named in a message


def load_encoder_weights(
    encoder: nn.Module,
    path: str | os.PathLike[str],
    names: Mapping[str, str] | None = None,
    *,
    architecture: str | None = None,
) -> None:
    """Load a published state dict into an encoder.

    Every tensor of the encoder has to be in the file, with its shape, and every tensor of the
    file has to have its place, but for the classifier that such networks end in. Two shapes are
    fitted: weights of a fully connected layer become those of the convolution over its whole
    input, and a first convolution over red, green and blue becomes their sum where the encoder
    takes one channel, which gives what it would have given for a grey image in three channels.

    Args:
        encoder: Changed in place, unless an error is raised.
        path: Local file of a state dict, for example of torchvision; or `imagenet`, for which
            torchvision looks in torch's folder of downloads, and then on the network.
        names: Key in the file to key in the encoder; empty or None where they are the same.
        architecture: torchvision's name of the encoder, such as `resnet34`; for `imagenet`.

    Raises:
        BundleError: `no-weights`, `bad-weights`, `weights-not-finite` or `weights-mismatch`.
    """
    file = _downloaded(architecture) if path == IMAGENET and architecture else Path(path)
    state = _read(file)
    own = encoder.state_dict()
    names = names or {key: key for key in own}
    fitted: dict[str, torch.Tensor] = {}
    faults: list[str] = []
    for theirs, ours in names.items():
        if theirs not in state:
            if not theirs.endswith(COUNTS):
                faults.append(f"{theirs} is missing")
            continue
        tensor = _fit(state[theirs], own[ours])
        if tensor is None:
            shapes = f"{_shape(state[theirs])} in place of {_shape(own[ours])}"
            faults.append(f"{theirs} is {shapes}")
        else:
            fitted[ours] = tensor
    surplus = [key for key in state if key not in names and not key.endswith(COUNTS)]
    faults += [f"{key} has no place" for key in surplus if not key.startswith(CLASSIFIERS)]
    if faults:
        more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        msg = (
            f"encoder_weights must fit the encoder, got others in {file.name}:"
            f" {', '.join(faults[:SHOWN])}{more}. Give the file of this very encoder, or leave it"
            " out to train from scratch."
        )
        raise BundleError(msg, code="weights-mismatch")
    encoder.load_state_dict({**own, **fitted})
    log.info("%d tensors of %s loaded, without %s", len(fitted), file.name, surplus or "any left")


def _downloaded(architecture: str) -> Path:
    from torchvision.models import get_model_weights  # noqa: PLC0415  # optional, and slow

    url: str = get_model_weights(architecture)["IMAGENET1K_V1"].url
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if file.is_file():
        return file
    log.warning("downloading %s, as encoder_weights=%s asks for", url, IMAGENET)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        digest = file.stem.rpartition("-")[2]
        torch.hub.download_url_to_file(url, str(file), hash_prefix=digest, progress=False)
    except (OSError, RuntimeError) as error:  # no network, a full disk; another hash
        msg = (
            f"encoder_weights={IMAGENET} must be downloaded from {url}, got: {error}. Download the"
            " file where there is a network and give its path."
        )
        raise BundleError(msg, code="no-weights") from error
    return file


def _read(file: Path) -> dict[str, torch.Tensor]:
    if not file.is_file():
        msg = (
            f"encoder_weights must be a local file or {IMAGENET}, got {str(file)!r}. Download the"
            " file first, or leave it out to train from scratch."
        )
        raise BundleError(msg, code="no-weights")
    rule = "encoder_weights must be a state dict that torch.load(..., weights_only=True) reads"
    try:
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several kinds on a damaged file
        reason = str(error).partition("\n")[0]
        msg = f"{rule}, got {file.name}: {reason}. Save network.state_dict() alone."
        raise BundleError(msg, code="bad-weights") from error
    if not isinstance(state, dict) or not state or not all(map(torch.is_tensor, state.values())):
        held = list(state.values()) if isinstance(state, dict) else [state]
        kinds = ", ".join(sorted({type(value).__name__ for value in held})) or "nothing"
        msg = f"{rule}, got {kinds} in {file.name}. Save network.state_dict() alone."
        raise BundleError(msg, code="bad-weights")
    bad = [key for key, tensor in state.items() if not torch.isfinite(tensor).all()]
    if bad:
        msg = f"encoder_weights must be finite, got {bad[0]} in {file.name}. Copy the file again."
        raise BundleError(msg, code="weights-not-finite")
    return {str(key): tensor for key, tensor in state.items()}


def _fit(tensor: torch.Tensor, own: torch.Tensor) -> torch.Tensor | None:
    if tensor.shape == own.shape:
        return tensor
    if own.ndim != 4:
        return None
    if tensor.ndim == 2 and len(tensor) == len(own) and tensor.numel() == own.numel():
        return tensor.reshape(own.shape)  # (out, C * H * W) to (out, C, H, W)
    if own.shape[1] == 1 and tensor.shape == (len(own), 3, *own.shape[2:]):
        return tensor.sum(dim=1, keepdim=True)
    return None


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
