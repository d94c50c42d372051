"""Whether labels, classes and regions mean the same wherever a bundle states them."""

from collections.abc import Iterator
from typing import Any, TypeGuard

from medseg.bundle.check.configs import Workflow
from medseg.bundle.check.documents import get, nodes_of, target_key
from medseg.bundle.check.fault import Fault, shown
from medseg.bundle.check.metadata import FORMAT, METADATA
from medseg.bundle.concepts import CODES, CONCEPT_RULE, read_concept
from medseg.bundle.foreign import is_foreign

NAMES = f"{FORMAT}#outputs#pred#channel_def"
LABELS = "medseg#labels"
ACTIVATIONS = ("softmax", "sigmoid")
LARGEST_VALUE = 65535
"""Of a mask of 16 bits."""


def check_labels(metadata: dict[str, Any]) -> Iterator[Fault]:
    """Compare the table of labels with the classes or regions that the network gives.

    Args:
        metadata: Content of metadata.json.

    Yields:
        Faults `label-missing`, `label-differs`, `label-surplus`, `label-value-twice`,
        `bad-label`, `bad-color`, `bad-code` and `regions-differ`.
    """
    own = metadata.get("medseg")
    if not isinstance(own, dict):
        return
    is_sigmoid = own.get("activation") == "sigmoid"
    table = own.get("labels")
    found: dict[int, tuple[str, str]] = {}
    values: dict[int, str] = {}
    for place, entry in enumerate(table if isinstance(table, list) else []):
        key = f"{LABELS}#{place}"
        faults = list(_entry(key, entry))
        yield from faults
        if not any(fault.code == "bad-label" for fault in faults):
            found[entry["index"]] = (f"{LABELS}#{place}", entry["name"])
            yield from _value(key, entry, values)
    wanted = labels_by_index(metadata, is_sigmoid=is_sigmoid)
    if wanted and isinstance(table, list) and own.get("activation", "softmax") in ACTIVATIONS:
        yield from _compare(wanted, found, is_sigmoid=is_sigmoid)
    if is_sigmoid:
        yield from _regions(metadata, own)


def _entry(key: str, entry: Any) -> Iterator[Fault]:
    if not isinstance(entry, dict):
        rule = 'an entry such as {"index": 1, "name": "liver", "color": [230, 25, 75]}'
        yield Fault("bad-label", METADATA, key, shown(entry), rule, "write it as such")
        return
    index, name, color = entry.get("index"), entry.get("name"), entry.get("color")
    if not _is_number(index) or index < 1:
        rule = "a number: the class, or the channel of the region plus 1"
        yield Fault("bad-label", METADATA, f"{key}#index", shown(index), rule, "write 1 or more")
    if not isinstance(name, str):
        rule = "a name"
        yield Fault("bad-label", METADATA, f"{key}#name", shown(name), rule, "name the label")
    fits = isinstance(color, list) and len(color) == 3 and all(_is_byte(part) for part in color)
    if color is not None and not fits:
        rule, do = "red, green and blue, each 0 to 255", "write for example [230, 25, 75]"
        yield Fault("bad-color", METADATA, f"{key}#color", shown(color), rule, do)
    yield from _codes(key, entry)


def _codes(key: str, entry: dict[str, Any]) -> Iterator[Fault]:
    for field in CODES:
        try:
            read_concept(entry.get(field))
        except ValueError as error:
            do = f"{error}. Write all three, or leave {field} out: then the name decides"
            place = (METADATA, f"{key}#{field}", shown(entry[field]))
            yield Fault("bad-code", *place, CONCEPT_RULE, do)


def _value(key: str, entry: dict[str, Any], values: dict[int, str]) -> Iterator[Fault]:
    value = entry.get("value", entry["index"])
    place = (METADATA, f"{key}#value", shown(value))
    if not _is_number(value) or not 1 <= value <= LARGEST_VALUE:
        rule = f"a number from 1 to {LARGEST_VALUE}, as masks hold it"
        yield Fault("bad-label", *place, rule, f"write {entry['index']}")
    elif value in values:
        rule = f"a value of its own: {values[value]!r} has {value} in masks"
        yield Fault("label-value-twice", *place, rule, "give each label a value of its own")
    else:
        values[value] = entry["name"]


def _is_number(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_byte(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 255


def labels_by_index(metadata: dict[str, Any], *, is_sigmoid: bool) -> dict[int, str]:
    """Return the label of each channel of the prediction, background left out.

    Args:
        metadata: Content of metadata.json.
        is_sigmoid: Whether the channels are regions.

    Returns:
        Class, or channel of a region plus 1, to name, in the order of the channels; nothing where
        the channels' names are wrong themselves.
    """
    names = get(metadata, NAMES)
    if not isinstance(names, dict) or set(names) != {str(i) for i in range(len(names))}:
        return {}
    if not all(isinstance(name, str) for name in names.values()):
        return {}
    if len(set(names.values())) < len(names) or len(names) != _stated_channels(metadata, names):
        return {}
    wanted = {number + is_sigmoid: names[str(number)] for number in range(len(names))}
    wanted.pop(0, None)
    return wanted


def _stated_channels(metadata: dict[str, Any], names: dict[str, Any]) -> int:
    count = get(metadata, f"{FORMAT}#outputs#pred#num_channels")
    return count if _is_number(count) else len(names)


def _compare(
    wanted: dict[int, str], found: dict[int, tuple[str, str]], *, is_sigmoid: bool
) -> Iterator[Fault]:
    what = "region" if is_sigmoid else "class"
    for index, name in wanted.items():
        channel = index - is_sigmoid
        if index not in found:
            rule = f"a label for {what} {channel}, {name!r} in {NAMES}"
            do = f'add {{"index": {index}, "name": "{name}", "color": [r, g, b]}}'
            named = shown({index: name for index, (_, name) in found.items()})
            yield Fault("label-missing", METADATA, LABELS, named, rule, do)
        elif found[index][1] != name and found[index][1].strip() and name.strip():
            place = (METADATA, f"{found[index][0]}#name", found[index][1])
            rule, do = f"{name!r}, as {NAMES} says", f"write {name!r}, or change {NAMES}"
            yield Fault("label-differs", *place, rule, do)
    for index in sorted(set(found) - set(wanted)):
        place = (METADATA, found[index][0], found[index][1])
        rule = shown(f"{what} numbers of {NAMES}: {shown(wanted)}")
        do = f"remove the label, or add {what} {index} to the network"
        yield Fault("label-surplus", *place, rule, do)


def _regions(metadata: dict[str, Any], own: dict[str, Any]) -> Iterator[Fault]:
    names = get(metadata, NAMES)
    table = own.get("regions")
    if not isinstance(names, dict) or not isinstance(table, list):
        return
    for place, region in enumerate(table):
        key = f"medseg#regions#{place}"
        if not isinstance(region, dict) or not _is_number(region.get("channel")):
            rule = 'an entry such as {"channel": 0, "name": "core", "values": [2], "paints": 2}'
            yield Fault("regions-differ", METADATA, key, shown(region), rule, "write it as such")
            continue
        name = names.get(str(region["channel"]))
        if name is None:
            rule, do = f"a channel of {NAMES}: {', '.join(names)}", "correct the number"
            found = shown(region["channel"])
            yield Fault("regions-differ", METADATA, f"{key}#channel", found, rule, do)
        elif region.get("name") != name:
            rule, do = f"{name!r}, as {NAMES} says", f"write {name!r}, or change {NAMES}"
            found = shown(region.get("name"))
            yield Fault("regions-differ", METADATA, f"{key}#name", found, rule, do)


def check_values(workflow: Workflow, metadata: dict[str, Any]) -> Iterator[Fault]:
    """Compare the values of masks with those of label files, and classes with regions.

    Args:
        workflow: Inference.
        metadata: Content of metadata.json.

    Yields:
        Faults `activation-differs`, `regions-differ` and `mask-values-differ`, warnings
        `label-value-differs`.
    """
    own = metadata.get("medseg")
    if is_foreign(metadata):  # whose postprocessing decides
        return
    own = own if isinstance(own, dict) else {}
    activation = own.get("activation", "softmax")
    found = _decides(workflow)
    if found and activation in ACTIVATIONS and found[1] != activation:
        key, used = found
        rule = f"{used}: {key} of {workflow.file_of(key)} takes " + (
            "the largest channel" if used == "softmax" else "each channel above a threshold"
        )
        stated = activation if "activation" in own else "(none, which means softmax)"
        do = f'write "medseg": {{"activation": "{used}", ...}}'
        yield Fault("activation-differs", METADATA, "medseg#activation", stated, rule, do)
        return
    yield from _mask_values(workflow, own)
    if activation == "sigmoid":
        yield from _region_values(workflow, own)
    else:
        yield from _label_values(workflow, own)


def _decides(workflow: Workflow) -> tuple[str, str] | None:
    """Return what makes a mask of the prediction, and what that means for it."""
    if inferer := _mask_inferer(workflow):
        return inferer[0], "sigmoid" if inferer[1].get("regions") is True else "softmax"
    base = target_key(workflow.content, "postprocessing")
    steps = get(workflow.content, base)
    for key, step in nodes_of(steps, base) if isinstance(steps, dict | list) else ():
        if not isinstance(step, dict):
            continue
        name = str(step.get("_target_")).rpartition(".")[2]
        if name == "RegionsToLabelsd" or (name == "Activationsd" and step.get("sigmoid") is True):
            return key, "sigmoid"
        if name == "AsDiscreted" and step.get("argmax") in (True, [True]):
            return key, "softmax"
    return None


def _mask_inferer(workflow: Workflow) -> tuple[str, dict[str, Any]] | None:
    for key, part in nodes_of(workflow.content):
        if isinstance(part, dict) and str(part.get("_target_")).endswith(".MaskInferer"):
            return key, part
    return None


def _mask_values(workflow: Workflow, own: dict[str, Any]) -> Iterator[Fault]:
    inferer, table = _mask_inferer(workflow), own.get("labels")
    if inferer is None or not isinstance(table, list):
        return
    stated = [e.get("value", e.get("index")) for e in table if isinstance(e, dict)]
    wanted = stated if inferer[1].get("regions") is True else [0, *stated]
    values = inferer[1].get("values")
    # a label too few or too many is a fault of its own
    if isinstance(values, list) and len(values) == len(wanted) and values != wanted:
        key = f"{inferer[0]}#values"
        rule = f"{wanted}, as {LABELS} of {METADATA} says"
        do = f"write {wanted}, or change {LABELS}"
        yield Fault("mask-values-differ", workflow.file_of(key), key, shown(values), rule, do)


def _label_values(workflow: Workflow, own: dict[str, Any]) -> Iterator[Fault]:
    values, table = get(workflow.content, "label_values"), own.get("labels")
    if not isinstance(values, list) or not isinstance(table, list):
        return
    for place, entry in enumerate(table):
        index = entry.get("index") if isinstance(entry, dict) else None
        if not _is_number(index) or not 0 < index < len(values):
            continue
        of_files, value = values[index], entry.get("value", index)
        if isinstance(of_files, list) and of_files and value not in of_files:
            yield Fault(
                "label-value-differs",
                METADATA,
                f"{LABELS}#{place}#value",
                shown(value),
                f"one of {of_files}, which label files have: label_values#{index}"
                f" of {workflow.file_of('label_values')}",
                f"write {of_files[0]}, or leave it when masks are to differ from label files",
                severity="warning",
            )


def _region_values(workflow: Workflow, own: dict[str, Any]) -> Iterator[Fault]:
    values, table = get(workflow.content, "region_values"), own.get("regions")
    if not isinstance(values, list) or not isinstance(table, list):
        return
    for place, region in enumerate(table):
        channel = region.get("channel") if isinstance(region, dict) else None
        if not _is_number(channel) or not 0 <= channel < len(values):
            continue
        if region.get("values") != values[channel]:
            rule = f"{values[channel]}, as region_values#{channel} says"
            file = workflow.file_of("region_values")
            yield Fault(
                "regions-differ",
                METADATA,
                f"medseg#regions#{place}#values",
                shown(region.get("values")),
                f"{rule} in {file}",
                f"write {values[channel]}, or change region_values",
            )
