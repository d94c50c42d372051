"""Whether network, metadata, labels and patch size speak of the same channels and sizes."""

import math
from collections.abc import Iterator
from typing import Any

from medseg.bundle.check.configs import Workflow
from medseg.bundle.check.documents import get, nodes_of
from medseg.bundle.check.fault import Fault, shown

METADATA = "configs/metadata.json"
FORMAT = "network_data_format"
DEFAULT_BLOCKS = {"SegResNet": 4, "SegResNetVAE": 4}
"""Levels of networks whose halvings are not stated as strides (MONAI 1.6's defaults)."""


def check_channels(workflow: Workflow, metadata: dict[str, Any]) -> Iterator[Fault]:
    """Compare channels and classes wherever a bundle states them.

    Args:
        workflow: Inference.
        metadata: Content of metadata.json.

    Yields:
        Faults `channels-differ`, `classes-differ` and `bad-channel-names`.
    """
    network = get(workflow.content, "network_def")
    network = network if isinstance(network, dict) else {}
    for side, kind, argument in (
        (f"{FORMAT}#inputs#image", "channels-differ", "in_channels"),
        (f"{FORMAT}#outputs#pred", "classes-differ", "out_channels"),
    ):
        stated = get(metadata, side)
        if not isinstance(stated, dict):
            continue
        count = stated.get("num_channels")
        yield from _names(side, stated.get("channel_def"), count, kind)
        wanted = _number(workflow, f"network_def#{argument}")
        if argument in network and {type(wanted), type(count)} == {int} and count != wanted:
            yield Fault(
                kind,
                METADATA,
                f"{side}#num_channels",
                shown(count),
                f"network_def#{argument} of {workflow.file_of('network_def')}: {wanted}",
                f"write {wanted}, or change network_def#{argument}",
            )
    yield from _stated_classes(workflow, get(metadata, f"{FORMAT}#outputs#pred#num_channels"))


def _names(side: str, names: Any, count: Any, kind: str) -> Iterator[Fault]:
    key = f"{side}#channel_def"
    if not isinstance(names, dict):
        if isinstance(count, int):
            yield Fault(
                "bad-channel-names",
                METADATA,
                key,
                shown(names),
                "one name a channel, the channel's number as its key",
                f"add {shown({str(i): f'name {i}' for i in range(min(count, 4))})}",
            )
        return
    wanted = {str(index) for index in range(count)} if isinstance(count, int) else set()
    if wanted and set(names) != wanted:
        yield Fault(
            kind,
            METADATA,
            key,
            shown(names),
            f"{count} channels, as num_channels says: {', '.join(sorted(wanted))}",
            "add the missing names, or correct num_channels",
        )
    values = [str(name) for name in names.values()]
    if len(set(values)) != len(values):
        yield Fault(
            "bad-channel-names",
            METADATA,
            key,
            shown(names),
            "names that differ",
            "give every channel a name of its own",
        )


def _stated_classes(workflow: Workflow, count: Any) -> Iterator[Fault]:
    """Compare the places of the configs that number classes with the metadata."""
    if not isinstance(count, int):
        return
    for key in ("num_classes", "label_values", "region_values"):
        value = get(workflow.content, key)
        stated = len(value) if isinstance(value, list) else value
        if isinstance(stated, int) and stated != count:
            yield Fault(
                "classes-differ",
                workflow.file_of(key),
                key,
                shown(value),
                f"{count} classes, as {FORMAT}#outputs#pred#num_channels of {METADATA} says",
                f"make {key} fit the metadata, or the metadata fit {key}",
            )


def check_labels(metadata: dict[str, Any]) -> Iterator[Fault]:
    """Compare the table of labels with the classes the network gives.

    Args:
        metadata: Content of metadata.json.

    Yields:
        Faults `label-missing`, `label-differs`, `label-surplus` and `bad-color`.
    """
    names = get(metadata, f"{FORMAT}#outputs#pred#channel_def")
    own = metadata.get("medseg")
    table = own.get("labels") if isinstance(own, dict) else None
    if not isinstance(names, dict) or not isinstance(table, list) or not isinstance(own, dict):
        return
    is_sigmoid = own.get("activation") == "sigmoid"
    wanted = {int(key) + is_sigmoid: str(name) for key, name in names.items() if key.isdigit()}
    wanted.pop(0, None)
    found: dict[int, str] = {}
    for place, entry in nodes_of(table, "medseg#labels"):
        if not isinstance(entry, dict) or "index" not in entry:
            continue
        found[int(entry["index"])] = str(entry.get("name", ""))
        yield from _color(place, entry.get("color"))
    if not is_sigmoid:
        yield from _compare(wanted, found)


def _color(place: str, color: Any) -> Iterator[Fault]:
    fits = isinstance(color, list) and len(color) == 3
    if color is not None and not (fits and all(_is_byte(part) for part in color)):
        yield Fault(
            "bad-color",
            METADATA,
            f"{place}#color",
            shown(color),
            "red, green and blue, each 0 to 255",
            "write for example [230, 25, 75]",
        )


def _is_byte(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value <= 255


def _compare(wanted: dict[int, str], found: dict[int, str]) -> Iterator[Fault]:
    where = f"{FORMAT}#outputs#pred#channel_def"
    for index, name in wanted.items():
        if index not in found:
            yield Fault(
                "label-missing",
                METADATA,
                "medseg#labels",
                shown(found),
                f"a label for class {index}, {name!r} in {where}",
                f'add {{"index": {index}, "name": "{name}", "color": [r, g, b]}}',
            )
        elif found[index] != name:
            yield Fault(
                "label-differs",
                METADATA,
                f"medseg#labels: index {index}",
                found[index],
                f"{name!r}, as {where} says",
                f"write {name!r}, or change {where}",
            )
    for index in sorted(set(found) - set(wanted)):
        yield Fault(
            "label-surplus",
            METADATA,
            f"medseg#labels: index {index}",
            found[index],
            f"classes of {where}: {shown(wanted)}",
            f"remove the label, or add class {index} to the network",
        )


def check_patch_size(workflow: Workflow, metadata: dict[str, Any]) -> Iterator[Fault]:
    """Compare the patch size with what the network halves and with the metadata.

    Args:
        workflow: Inference.
        metadata: Content of metadata.json.

    Yields:
        Faults `indivisible-patch` and `patch-size-differs`.
    """
    key = "patch_size" if "patch_size" in workflow.content else "inferer#roi_size"
    patch = _list(workflow, key)
    if not patch:
        return
    steps = _halvings(workflow, len(patch))
    if steps and any(size % step for size, step in zip(patch, steps, strict=True)):
        fitting = [max(round(p / s), 1) * s for p, s in zip(patch, steps, strict=True)]
        yield Fault(
            "indivisible-patch",
            workflow.file_of(key),
            key,
            shown(patch),
            f"sizes that the network's strides divide: multiples of {steps}",
            f"write {fitting}",
        )
    for side in ("inputs#image", "outputs#pred"):
        place = f"{FORMAT}#{side}#spatial_shape"
        shape = get(metadata, place)
        is_fixed = isinstance(shape, list) and all(isinstance(size, int) for size in shape)
        if is_fixed and shape != patch:
            yield Fault(
                "patch-size-differs",
                METADATA,
                place,
                shown(shape),
                f"{key} of {workflow.file_of(key)}: {patch}",
                f"write {patch}",
                severity="warning",
            )


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
        if any(len(one) != dims or not all(isinstance(s, int) for s in one) for one in steps):
            return None
        return [math.prod(axis) for axis in zip(*steps, strict=True)]
    if name in DEFAULT_BLOCKS:
        blocks = get(workflow.content, "network_def#blocks_down")
        levels = len(blocks) if isinstance(blocks, list) else DEFAULT_BLOCKS[name]
        return [2 ** (levels - 1)] * dims
    return None


def _list(workflow: Workflow, key: str) -> list[int]:
    value = get(workflow.content, key)
    if not isinstance(value, list) or not all(isinstance(size, int) for size in value):
        return []
    return value


def _number(workflow: Workflow, key: str) -> int | None:
    value = get(workflow.content, key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
