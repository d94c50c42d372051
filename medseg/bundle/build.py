"""Build the parts of a bundle that inference is made of: network, transforms, inferer."""

import hashlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose

from medseg.bundle.load import Bundle
from medseg.errors import BundleError

Inferer = Callable[[torch.Tensor, Callable[..., torch.Tensor]], torch.Tensor]


@dataclass(frozen=True)
class InferenceParts:
    """What one bundle brings to inference.

    Attributes:
        network: With its weights, in evaluation mode, on the device.
        preprocessing: Transforms of a dictionary with the key `image`, in order.
        inferer: Called with a (1, C, *spatial) tensor and the network; returns class maps.
        key: Stands for the network with its weights.
    """

    network: torch.nn.Module
    preprocessing: tuple[Callable[[dict[str, Any]], dict[str, Any]], ...]
    inferer: Inferer
    key: str = ""


def build_inference(
    bundle: Bundle,
    device: torch.device,
    *,
    overlap: float | None = None,
    weights: Path | None = None,
) -> InferenceParts:
    """Build network, preprocessing and inferer from a bundle's configs and load the weights.

    Args:
        bundle: The bundle.
        device: Where the network goes.
        overlap: Overlap of the sliding window, 0 to below 1; the bundle's own when left out.
        weights: Weight file; the bundle's own when left out.

    Returns:
        The parts.

    Raises:
        BundleError: If there are no weights (`no-weights`), they belong to another network
            (`weights-mismatch`), or a part cannot be built (`bad-config`).
    """
    bundle.require_weights()
    weights = weights or bundle.weights
    parser = ConfigParser()
    parser.read_config([str(file) for file in bundle.config_files])
    parser["bundle_root"] = str(bundle.root)
    parser["device"] = device
    if overlap is not None:
        if "overlap" not in parser.get("inferer", {}):
            msg = f"overlap must be left out for {bundle.name}, whose inferer has none."
            raise BundleError(msg, code="bad-config")
        parser["inferer#overlap"] = overlap
    network = _part(parser, bundle, "network_def")
    _load_weights(network, bundle, weights)
    preprocessing = _part(parser, bundle, "preprocessing")
    transforms = preprocessing.transforms if isinstance(preprocessing, Compose) else [preprocessing]
    return InferenceParts(
        network=network.to(device).eval(),
        preprocessing=tuple(_flat(transforms)),
        inferer=_part(parser, bundle, "inferer"),
        key=_key(network, weights),
    )


def _key(network: torch.nn.Module, weights: Path) -> str:
    """Return a hash of the weights and of the layers they go into."""
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(repr(network).encode())
    return digest.hexdigest()


def _part(parser: ConfigParser, bundle: Bundle, name: str) -> Any:
    return _built(parser, name, bundle.name)


def _built(parser: ConfigParser, name: str, bundle: str) -> Any:
    try:
        with _without_library_notes():
            return parser.get_parsed_content(name)
    except Exception as error:  # a config can raise anything
        cause = error.__cause__ or error
        msg = f"{name} of bundle {bundle} cannot be built: {type(cause).__name__}: {cause}"
        raise BundleError(msg, code="bad-config") from error


def build_part(config: Mapping[str, Any], name: str, root: Path) -> Any:
    """Build one part of merged configs.

    Args:
        config: As `merge_configs` gives them.
        name: Key of the part.
        root: The bundle's folder.

    Returns:
        What the part describes.

    Raises:
        BundleError: If it cannot be built (`bad-config`).
    """
    parser = ConfigParser({**config, "bundle_root": str(root), "device": torch.device("cpu")})
    return _built(parser, name, root.name)


@contextmanager
def _without_library_notes() -> Iterator[None]:
    """Silence what MONAI 1.6 says while it builds a transform.

    It misses an optional NVIDIA codec whenever a LoadImage is built (never used: medseg reads the
    pixels itself), and announces changed defaults (the bundle author's matter, not the user's).
    """
    logger = logging.getLogger("monai.data.nvimgcodec_pydicom_plugin")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def _flat(transforms: Sequence[Any]) -> list[Any]:
    result = []
    for transform in transforms:
        result += _flat(transform.transforms) if isinstance(transform, Compose) else [transform]
    return result


def _load_weights(network: torch.nn.Module, bundle: Bundle, path: Path) -> None:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several kinds on a damaged file
        msg = f"weights of {bundle.name} must be a state dict that torch can load safely: {error}"
        raise BundleError(msg.splitlines()[0], code="bad-weights") from error
    if not isinstance(weights, dict) or not weights:
        msg = f"weights of {bundle.name} must be a state dict, got {type(weights).__name__}."
        raise BundleError(msg, code="bad-weights")
    if "model" in weights and isinstance(weights["model"], dict):
        weights = weights["model"]
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        msg = (
            f"weights of {bundle.name} must fit its network_def, got another network's:"
            f" {' '.join(lines)[:200]}"
        )
        raise BundleError(msg, code="weights-mismatch") from error
