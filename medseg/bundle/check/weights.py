"""Whether the weights are plain tensors that fit the network."""

import copy
import inspect
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.bundle.check.configs import Workflow
from medseg.bundle.check.documents import get, is_expression, nodes_of, references_of
from medseg.bundle.check.fault import Fault, shown
from medseg.bundle.check.files import weight_names
from medseg.bundle.check.targets import Locator
from medseg.bundle.removed import without_removed

if TYPE_CHECKING:
    import torch

TRUSTED = ("monai", "medseg", "torch")
"""Packages whose networks are built to look at the shapes of their tensors."""

HEADS = ("deep_supervision_heads.", ".super_head.", "seg_layers.")
"""Parts of the names of tensors that only training with deep supervision has."""

PARALLEL = "module."
"""What torch's DistributedDataParallel puts before the names of the tensors it holds."""

DOWNLOADING = ("pretrained", "weights", "pretrained_model_name_or_path")
"""Arguments that make a network fetch weights while it is built."""


def check_weights(root: Path, workflow: Workflow, metadata: dict[str, Any]) -> Iterator[Fault]:
    """Check every weight file that inference reads.

    Args:
        root: The bundle's folder.
        workflow: Inference.
        metadata: Content of metadata.json.

    Yields:
        Faults `unsafe-weights`, `bad-weights`, `weights-not-finite`, `weights-with-heads`,
        `weights-mismatch`, `weights-shape-differs` and `network-not-built`.
    """
    names = [name for name in weight_names(workflow, metadata) if (root / name).is_file()]
    wanted, fault = _shapes(root, workflow)
    if fault:
        yield fault
    for name in names:
        weights, fault = _read(root, name)
        if fault:
            yield fault
        if weights is not None:
            yield from _finite(name, weights)
            if wanted is not None:
                yield from _compare(name, weights, wanted)


def _read(root: Path, name: str) -> tuple[dict[str, Any] | None, Fault | None]:
    import torch  # noqa: PLC0415  # slow to import

    rule = "a state dict that torch.load(..., weights_only=True) reads"
    try:
        weights = torch.load(root / name, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # noqa: BLE001 -- torch raises several kinds on a damaged file
        text = str(error)
        holds_code = "Weights only load failed" in text or "weights_only" in text
        first = next((line for line in text.splitlines() if "GLOBAL" in line), "")
        if holds_code:
            return None, Fault(
                "unsafe-weights",
                name,
                "",
                shown(first or "a pickle that would run code"),
                rule,
                "save network.state_dict() alone; load this file with nothing, if not yours",
            )
        return None, Fault(
            "bad-weights",
            name,
            "",
            shown(text.partition("\n")[0]),
            rule,
            "copy the file again, or train again",
        )
    if isinstance(weights, dict) and isinstance(weights.get("model"), dict):
        weights = weights["model"]
    if (
        not isinstance(weights, dict)
        or not weights
        or not all(map(torch.is_tensor, weights.values()))
    ):
        kinds = (
            sorted({type(v).__name__ for v in weights.values()})
            if isinstance(weights, dict)
            else []
        )
        found = f"a {type(weights).__name__} of {', '.join(kinds) or 'nothing'}"
        return None, Fault("bad-weights", name, "", found, rule, "save network.state_dict() alone")
    return weights, None


def _finite(name: str, weights: dict[str, Any]) -> Iterator[Fault]:
    import torch  # noqa: PLC0415

    bad = [key for key, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if bad:
        yield Fault(
            "weights-not-finite",
            name,
            bad[0],
            f"{len(bad)} tensors with NaN or infinity",
            "finite numbers",
            "train again from an earlier checkpoint",
        )


def _shapes(root: Path, workflow: Workflow) -> tuple[dict[str, "torch.Size"] | None, Fault | None]:
    """Build the network without memory for its weights; None where it is not to be built."""
    import torch  # noqa: PLC0415

    config = _static(workflow, get(workflow.content, "network_def"))
    if config is None or not _is_trusted(root, config):
        return None, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                with torch.device("meta"):
                    network = _build(config)
            except (NotImplementedError, RuntimeError):  # some initialise with numbers they read
                network = _build(config)
    except Exception as error:  # noqa: BLE001 -- a network can refuse its arguments with anything
        cause = error.__cause__ or error
        file = workflow.file_of("network_def")
        return None, Fault(
            "network-not-built",
            file,
            "network_def",
            shown(config),
            shown(f"arguments the network takes: {type(cause).__name__}: {cause}"),
            "correct the arguments of network_def",
        )
    return {name: tensor.shape for name, tensor in network.state_dict().items()}, None


def _build(config: dict[str, Any]) -> "torch.nn.Module":
    from monai.bundle import ConfigParser  # noqa: PLC0415

    config = copy.deepcopy(config)
    without_removed(config, "network_def")
    network: torch.nn.Module = ConfigParser(config).get_parsed_content("")
    return network


def _static(workflow: Workflow, value: Any, depth: int = 0) -> Any:
    """Follow references; None where an expression or a circle keeps a value from being known."""
    if depth > 20:
        return None
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        items = {key: _static(workflow, item, depth + 1) for key, item in pairs}
        if any(items[key] is None and item is not None for key, item in _pairs(value)):
            return None
        return items if isinstance(value, dict) else list(items.values())
    if is_expression(value) or (isinstance(value, str) and value.startswith("%")):
        return None
    found = references_of(value)
    return _static(workflow, get(workflow.content, found[0]), depth + 1) if found else value


def _pairs(value: dict[Any, Any] | list[Any]) -> list[tuple[Any, Any]]:
    return list(value.items() if isinstance(value, dict) else enumerate(value))


def _is_trusted(root: Path, config: Any) -> bool:
    """Whether building it builds torch modules of known packages, and fetches nothing."""
    from torch import nn  # noqa: PLC0415

    if not isinstance(config, dict) or "_target_" not in config:
        return False
    locator = Locator(root)
    for _, value in [("", config), *nodes_of(config)]:
        if not isinstance(value, dict) or "_target_" not in value:
            continue
        target = str(value["_target_"])
        if locator.is_local(target) or any(value.get(name) for name in DOWNLOADING):
            return False
        try:
            found = locator.find(target)
        except Exception:  # noqa: BLE001 -- reported as a target that cannot be imported
            return False
        is_module = inspect.isclass(found) and issubclass(found, nn.Module)
        if not is_module or found.__module__.partition(".")[0] not in TRUSTED:
            return False
    return True


def _compare(name: str, weights: dict[str, Any], wanted: dict[str, Any]) -> Iterator[Fault]:
    """Say once what keeps the tensors of a file from being those of the network."""
    if all(key.startswith(PARALLEL) for key in weights):
        do = "save network.module.state_dict()"
        found = f"{len(weights)} tensors whose names start with {PARALLEL}"
        rule = "the names that network_def has"
        yield Fault("weights-mismatch", name, next(iter(weights)), found, rule, do)
        return
    surplus = [key for key in weights if key not in wanted]
    missing = [key for key in wanted if key not in weights]
    sizes = [key for key in weights if key in wanted and weights[key].shape != wanted[key]]
    heads = [key for key in surplus if any(part in key for part in HEADS)]
    if heads:
        rule = "the tensors that inference needs, as network_def lists them"
        do = "leave out the deep-supervision heads; models/checkpoint.pt keeps them for a resume"
        found = f"{len(heads)} tensors of training alone"
        yield Fault("weights-with-heads", name, heads[0], found, rule, do)
        surplus = [key for key in surplus if key not in heads]
    if missing and not surplus and all(any(part in key for part in HEADS) for key in missing):
        rule = "the tensors of network_def, deep-supervision heads included"
        do = "set deep_supervision: false for inference"
        yield Fault("weights-mismatch", name, missing[0], "not in the file", rule, do)
    elif missing or surplus:
        parts = [(missing, "not in the file"), (surplus, "not in network_def")]
        parts += [(sizes, "of another shape")]
        found = "; ".join(f"{len(keys)} {what}: {keys[0]} ..." for keys, what in parts if keys)
        rule = f"the {len(wanted)} tensors of network_def"
        do = "change network_def to the trained one, or train again"
        yield Fault("weights-mismatch", name, (missing or surplus)[0], shown(found), rule, do)
    elif sizes:
        key = sizes[0]
        more = f", and {len(sizes) - 1} more differ" if len(sizes) > 1 else ""
        found = f"shape {list(weights[key].shape)}{more}"
        rule = f"shape {list(wanted[key])}, as network_def says"
        do = "change network_def to the trained one, or train again"
        yield Fault("weights-shape-differs", name, key, found, rule, do)
