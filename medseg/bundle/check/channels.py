"""Whether network, metadata, labels and patch size speak of the same channels and sizes."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from medseg.bundle.check.configs import Workflow
from medseg.bundle.check.documents import get, nodes_of, target_key
from medseg.bundle.check.fault import Fault, shown
from medseg.bundle.check.metadata import FORMAT, METADATA

DEFAULT_BLOCKS = {"SegResNet": 4, "SegResNetVAE": 4, "SegResNetDS": 4}
"""Levels of networks whose halvings are not stated as strides (MONAI 1.6's defaults)."""

IMAGE = f"{FORMAT}#inputs#image"
PRED = f"{FORMAT}#outputs#pred"


@dataclass(frozen=True)
class Statement:
    """One place that says how many channels there are."""

    file: str
    key: str
    value: Any
    count: int


def check_channels(workflow: Workflow, metadata: dict[str, Any]) -> Iterator[Fault]:
    """Compare channels and classes wherever a bundle states them; the odd one out is reported.

    Args:
        workflow: Inference.
        metadata: Content of metadata.json.

    Yields:
        Faults `channels-differ` and `classes-differ`.
    """
    read = [
        *_of_list(METADATA, "medseg#input#channels", get(metadata, "medseg#input#channels")),
        *_of_reader(workflow),
    ]
    masks = get(metadata, "medseg#previous_stage#labels")
    more = len(masks) if isinstance(masks, list) else 0  # of a cascade, beside the image's
    images = [
        *_of_network(workflow, "in_channels"),
        *_of_metadata(metadata, IMAGE),
        *(replace(statement, count=statement.count + more) for statement in read),
    ]
    yield from _odd_ones("channels-differ", "image channels", images)
    outputs = [*_of_network(workflow, "out_channels"), *_of_metadata(metadata, PRED)]
    for key in ("label_values", "region_values") if "medseg" in metadata else ():
        outputs += _of_list(workflow.file_of(key), key, get(workflow.content, key))
    yield from _odd_ones("classes-differ", "output channels", outputs)


def _of_network(workflow: Workflow, argument: str) -> list[Statement]:
    key = target_key(workflow.content, f"network_def#{argument}")
    count = get(workflow.content, key)
    return [Statement(workflow.file_of(key), key, count, count)] if _is_count(count) else []


def _of_metadata(metadata: dict[str, Any], side: str) -> list[Statement]:
    found = []
    count, names = get(metadata, f"{side}#num_channels"), get(metadata, f"{side}#channel_def")
    if _is_count(count):
        found.append(Statement(METADATA, f"{side}#num_channels", count, count))
    if isinstance(names, dict):
        found.append(Statement(METADATA, f"{side}#channel_def", names, len(names)))
    return found


def _of_list(file: str, key: str, value: Any) -> list[Statement]:
    return [Statement(file, key, value, len(value))] if isinstance(value, list) and value else []


def _of_reader(workflow: Workflow) -> list[Statement]:
    """Return how many channels medseg's reader is told to read."""
    for key, value in nodes_of(get(workflow.content, "preprocessing_transforms", [])):
        if isinstance(value, dict) and str(value.get("_target_")).endswith("ImageReader"):
            place = target_key(workflow.content, f"preprocessing_transforms#{key}#channels")
            count = get(workflow.content, place)
            if _is_count(count):
                return [Statement(workflow.file_of(place), place, count, count)]
    return []


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _odd_ones(code: str, what: str, statements: list[Statement]) -> Iterator[Fault]:
    """Report those that disagree with most; of equally many the network's are right."""
    votes = Counter(statement.count for statement in statements)
    if len(votes) < 2:
        return
    (agreed, _), *_ = votes.most_common()  # in the order of the statements where equal
    others = [one.key for one in statements if one.count == agreed]
    for one in statements:
        if one.count != agreed:
            entries = "entry" if agreed == 1 else "entries"
            do = f"write {agreed}" if one.value == one.count else f"list {agreed} {entries}"
            yield Fault(
                code,
                one.file,
                one.key,
                shown(one.value),
                shown(f"{agreed} {what}, as says {', '.join(others)}"),
                do,
            )


def check_channel_names(metadata: dict[str, Any]) -> Iterator[Fault]:
    """Check that each channel of image and prediction has its number and a name of its own.

    Args:
        metadata: Content of metadata.json.

    Yields:
        Faults `bad-channel-names`.
    """
    for side in (IMAGE, PRED):
        stated = get(metadata, side)
        if isinstance(stated, dict):
            yield from _names(f"{side}#channel_def", stated.get("channel_def"), stated)


def _names(key: str, names: Any, stated: dict[str, Any]) -> Iterator[Fault]:
    count = stated.get("num_channels")
    count = count if _is_count(count) else 1
    if names is None:
        example = shown({str(i): f"name {i}" for i in range(min(count, 4))})
        rule = "one name a channel, the channel's number as its key"
        yield Fault("bad-channel-names", METADATA, key, "(none)", rule, f"add {example}")
        return
    if not isinstance(names, dict) or not names:
        return
    wanted = [str(index) for index in range(len(names))]
    if len(names) == count and sorted(names, key=str) != sorted(wanted):
        rule, do = f"the keys {', '.join(wanted)}", "number the channels from 0"
        yield Fault("bad-channel-names", METADATA, key, shown(names), rule, do)
    values = [str(name).strip() for name in names.values()]
    if not all(isinstance(name, str) for name in names.values()):
        rule, do = "names as text", 'write them as "name"'
        yield Fault("bad-channel-names", METADATA, key, shown(names), rule, do)
    elif len(set(values)) != len(values):
        rule, do = "names that differ", "give every channel a name of its own"
        yield Fault("bad-channel-names", METADATA, key, shown(names), rule, do)


def check_patch_size(workflow: Workflow, metadata: dict[str, Any]) -> Iterator[Fault]:
    """Compare the patch size with what the network halves and with the metadata.

    Args:
        workflow: Inference.
        metadata: Content of metadata.json.

    Yields:
        Faults `dims-differ` and `indivisible-patch`, warnings `patch-size-differs`.
    """
    key = "patch_size" if "patch_size" in workflow.content else "inferer#roi_size"
    patch = _list(workflow, key)
    if not patch:
        return
    dims = get(workflow.content, "network_def#spatial_dims")
    if _is_count(dims) and len(patch) != dims:
        rule = f"{dims} sizes, as network_def#spatial_dims says"
        do = f"write {dims} sizes, or change spatial_dims"
        yield Fault("dims-differ", workflow.file_of(key), key, shown(patch), rule, do)
        return
    yield from _spacing(workflow, len(patch))
    steps = _halvings(workflow, len(patch))
    if steps and any(size % step for size, step in zip(patch, steps, strict=True)):
        fitting = [max(round(p / s), 1) * s for p, s in zip(patch, steps, strict=True)]
        rule = f"sizes that the network's strides divide: multiples of {steps}"
        file = workflow.file_of(key)
        yield Fault("indivisible-patch", file, key, shown(patch), rule, f"write {fitting}")
        return
    for side in (IMAGE, PRED):
        place = f"{side}#spatial_shape"
        shape = get(metadata, place)
        is_fixed = isinstance(shape, list) and all(_is_count(size) for size in shape)
        if is_fixed and shape != patch:
            rule = f"{key} of {workflow.file_of(key)}: {patch}"
            do = f"write {patch}"
            found = shown(shape)
            yield Fault("patch-size-differs", METADATA, place, found, rule, do, severity="warning")


def _spacing(workflow: Workflow, dims: int) -> Iterator[Fault]:
    for key, unit in (("spacing_mm", "mm"), ("spacing_px", "pixels")):
        spacing = get(workflow.content, key)
        if isinstance(spacing, list) and len(spacing) != dims:
            place = (workflow.file_of(key), key, shown(spacing))
            rule = f"{dims} distances, one an axis as patch_size has it"
            yield Fault("dims-differ", *place, rule, f"write {dims} distances in {unit}")


def _halvings(workflow: Workflow, dims: int) -> list[int] | None:
    """Return by what the network needs each axis to be divisible; None where it is not known."""
    network = get(workflow.content, "network_def")
    if not isinstance(network, dict):
        return None
    name = str(network.get("_target_")).rpartition(".")[2]
    if "strides" in network:
        strides = get(workflow.content, "network_def#strides")
        if not isinstance(strides, list) or not strides:
            return None
        steps = [one if isinstance(one, list) else [one] * dims for one in strides]
        if any(len(one) != dims or not all(_is_count(s) and s > 0 for s in one) for one in steps):
            return None
        return [math.prod(axis) for axis in zip(*steps, strict=True)]
    if name in DEFAULT_BLOCKS:
        blocks = get(workflow.content, "network_def#blocks_down")
        levels = len(blocks) if isinstance(blocks, list) else DEFAULT_BLOCKS[name]
        return [2 ** (levels - 1)] * dims
    return None


def _list(workflow: Workflow, key: str) -> list[int]:
    value = get(workflow.content, key)
    is_sizes = isinstance(value, list) and all(_is_count(size) and size > 0 for size in value)
    return value if is_sizes else []
