"""Build the parts of a bundle that inference is made of: network, transforms, inferer."""

import hashlib
import importlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from medseg.bundle.check.documents import nodes_of
from medseg.bundle.devices import on_one_device
from medseg.bundle.ending import Ending, ending_of, flat_steps, with_whole_labels
from medseg.bundle.foreign import POSTPROCESSING
from medseg.bundle.load import Bundle
from medseg.bundle.network_weights import load_script, load_weights, numpy_tables
from medseg.bundle.overrides import merge_configs
from medseg.bundle.removed import without_removed
from medseg.bundle.safety import guarded
from medseg.bundle.safety.expressions import ENCODER_WEIGHTS
from medseg.errors import BundleError, Problem

log = logging.getLogger(__name__)

SHARED = frozenset(("ignite", "medseg", "monai", "numpy", "torch"))
"""Packages that a folder of a bundle does not take the place of."""

Inferer = Callable[[torch.Tensor, Callable[..., torch.Tensor]], torch.Tensor]


@dataclass(frozen=True)
class InferenceParts:
    """What one bundle brings to inference.

    Attributes:
        network: With its weights, in evaluation mode, on the device.
        preprocessing: Transforms of a dictionary with the key `image`, in order.
        inferer: Called with a (1, C, *spatial) tensor and the network; returns class maps.
        key: Stands for the network with its weights.
        ending: What the bundle's own configs do to class maps; None where medseg decides.
        problems: What of the configs was not used as it stands.
        foreign: They are written for MONAI's own readers.
    """

    network: torch.nn.Module
    preprocessing: tuple[Callable[[dict[str, Any]], dict[str, Any]], ...]
    inferer: Inferer
    key: str = ""
    ending: Ending | None = None
    problems: tuple[Problem, ...] = ()
    foreign: bool = False


def build_inference(
    bundle: Bundle,
    device: torch.device,
    *,
    overlap: float | None = None,
    weights: Path | None = None,
    trust: bool = False,
) -> InferenceParts:
    """Build network, preprocessing and inferer from a bundle's configs and load the weights.

    Args:
        bundle: The bundle.
        device: Where the network goes.
        overlap: Overlap of the sliding window, 0 to below 1; the bundle's own when left out.
        weights: Weight file; the bundle's own when left out.
        trust: Run whatever the configs name, code in the bundle's folder included. Else only
            classes and expressions that compute are, see `medseg.bundle.safety`.

    Returns:
        The parts.

    Raises:
        BundleError: If there are no weights (`no-weights`), they belong to another network
            (`weights-mismatch`), a part cannot be built (`bad-config`), or it may run anything
            and the bundle is not trusted (`needs-trust`).
    """
    bundle.require_weights()
    weights = weights or bundle.weights
    parser = ConfigParser()
    parser.read_config([str(file) for file in bundle.config_files])
    parser["bundle_root"] = str(bundle.root)
    parser["device"] = device
    _set_overlap(parser, bundle, overlap)
    _resolve_macros(parser, bundle)
    problems = _without_removed(parser, bundle)
    _leave_out_encoder_weights(parser.config)
    strict = _is_strict(parser)
    if bundle.is_foreign:
        parser = ConfigParser(on_one_device(parser.config))
    if not trust:
        parser = ConfigParser(_safe(parser.config, bundle))
    with _own_code(bundle.root) if trust else nullcontext():
        network = _network(parser, bundle, weights, strict=strict)
        preprocessing = _part(parser, bundle, "preprocessing")
        ending, changed = _ending(parser, bundle, preprocessing)
        return InferenceParts(
            network=network.to(device).eval(),
            preprocessing=tuple(flat_steps(preprocessing)),
            inferer=_part(parser, bundle, "inferer"),
            key=_key(network, weights),
            ending=ending,
            problems=problems + changed,
            foreign=bundle.is_foreign,
        )


def inference_parts(bundle: Bundle, config: Mapping[str, Any]) -> list[str]:
    """Return the keys of what is built for inference.

    Args:
        bundle: The bundle.
        config: Its merged configs.
    """
    keys = ["preprocessing", "inferer"]
    if bundle.weights.suffix != ".ts":
        keys.insert(0, "network_def" if "network_def" in config else "network")
    if bundle.is_foreign and POSTPROCESSING in config:
        keys.append(POSTPROCESSING)
    return keys


def _safe(config: dict[str, Any], bundle: Bundle) -> dict[str, Any]:
    """Return what inference needs of the configs, or raise where it may run anything."""
    kept, unsafe = guarded(config, inference_parts(bundle, config))
    if unsafe:
        first = unsafe[0]
        more = f" {len(unsafe) - 1} more like it." if len(unsafe) > 1 else ""
        msg = (
            f"{first.key} in {file_of(bundle, first.key)} of {bundle.name} must be known to"
            f" compute and no more, got {first.value}: {first.reason}.{more}"
            " Add --trust (trust=True) to run the bundle's own code."
        )
        raise BundleError(msg, code="needs-trust")
    for name in ("bundle_root", "device"):
        kept[name] = config[name]
    return kept


def file_of(bundle: Bundle, key: str) -> str:
    """Return the config file that states a key.

    Args:
        bundle: The bundle.
        key: Its parts joined by `#`.

    Returns:
        File below the bundle's folder; the last of those that state the key or what it is in.
    """
    top = key.partition("#")[0]
    files = [file for file in bundle.config_files if top in merge_configs([file])]
    return (files or bundle.config_files)[-1].relative_to(bundle.root).as_posix()


@contextmanager
def _own_code(root: Path) -> Iterator[None]:
    """Find the modules of a trusted bundle first, as MONAI does that is run in its folder.

    Bundles share names such as `scripts`: what is imported here is forgotten again, and what was
    imported under these names before comes back.
    """
    tops = {path.stem for path in root.iterdir() if path.is_dir() or path.suffix == ".py"} - SHARED
    before = {name: sys.modules.pop(name) for name in _modules_of(tops)}
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(root))
        for name in _modules_of(tops):
            del sys.modules[name]
        sys.modules.update(before)


def _modules_of(tops: set[str]) -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] in tops]


def _resolve_macros(parser: ConfigParser, bundle: Bundle) -> None:
    try:
        parser.resolve_macro_and_relative_ids()
    except Exception as error:  # MONAI raises several kinds: files and keys that are not there
        msg = (
            f"macros (%) in the configs of {bundle.name} must name a key, or a file and its key,"
            f" got {type(error).__name__}: {error}"
        )
        raise BundleError(msg, code="bad-config") from error


def _set_overlap(parser: ConfigParser, bundle: Bundle, overlap: float | None) -> None:
    if overlap is None:
        return
    if "overlap" not in parser.get("inferer", {}):
        msg = f"overlap must be left out for {bundle.name}, whose inferer has none."
        raise BundleError(msg, code="bad-config")
    parser["inferer#overlap"] = overlap


def _without_removed(parser: ConfigParser, bundle: Bundle) -> tuple[Problem, ...]:
    """Drop what MONAI does not take any more, and say so."""
    removed = without_removed(parser.config)
    for one in removed:
        log.warning("%s: %s", bundle.name, one.message)
    return tuple(Problem("removed-argument", one.message, "warning") for one in removed)


def _leave_out_encoder_weights(config: Any) -> None:
    """Leave out what training starts from, which may be fetched: trained weights follow."""
    for _, value in nodes_of(config):
        if isinstance(value, dict) and "_target_" in value and ENCODER_WEIGHTS in value:
            value[ENCODER_WEIGHTS] = None


def _network(
    parser: ConfigParser, bundle: Bundle, weights: Path, *, strict: bool
) -> torch.nn.Module:
    if weights.suffix == ".ts":
        return load_script(weights, bundle.name)
    name = "network_def" if "network_def" in parser else "network"
    network: torch.nn.Module = _part(parser, bundle, name)
    if isinstance(network, torch.jit.ScriptModule):  # the configs read TorchScript themselves
        return network
    load_weights(network, bundle.name, weights, strict=strict)
    return network


def _is_strict(parser: ConfigParser) -> bool:
    """Say whether the bundle's loader of checkpoints wants all tensors."""
    return not any(
        isinstance(one, dict)
        and str(one.get("_target_")).endswith("CheckpointLoader")
        and one.get("strict") is False
        for _, one in nodes_of(parser.config)
    )


def _ending(
    parser: ConfigParser, bundle: Bundle, preprocessing: Any
) -> tuple[Ending | None, tuple[Problem, ...]]:
    """Return what the configs do to class maps, and what of it is done in another way."""
    if not bundle.is_foreign or POSTPROCESSING not in parser:
        return None, ()
    steps, changed = with_whole_labels(flat_steps(_part(parser, bundle, POSTPROCESSING)))
    ending = ending_of(
        flat_steps(preprocessing), steps, regions=bundle.regions, channels=len(bundle.values)
    )
    if not changed:
        return ending, ()
    note = (
        "Invertd of the bundle's postprocessing would mix label numbers; the nearest label was"
        " taken instead"
    )
    return ending, (Problem("nearest-labels", note, "warning"),)


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
        with _without_library_notes(), numpy_tables():
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
