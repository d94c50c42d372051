"""The part of the metadata that medseg reads."""

from collections.abc import Iterator, Sequence
from typing import Any

from medseg.bundle.check.configs import Workflow
from medseg.bundle.check.documents import get
from medseg.bundle.check.fault import Fault, nearest, shown
from medseg.bundle.check.labels import ACTIVATIONS, LABELS
from medseg.bundle.check.metadata import FORMAT, METADATA

Kinds = tuple[type, ...]

FIELDS: dict[str, Kinds] = {
    "activation": (str,), "labels": (list,), "regions": (list,), "postprocessing": (list,),
    "ensemble": (list,), "input": (dict,), "train_command": (str,), "licence": (str,),
    "objects": (bool,), "training": (dict,), "mirror_axes": (list,), "restoring": (dict,),
    "imported_from": (dict,), "previous_stage": (dict,),
}  # fmt: skip
INPUT_FIELDS: dict[str, Kinds] = {
    "modality": (list,), "min_slices": (int,), "max_spacing_mm": (int, float, type(None)),
    "image_type_prefer": (str,), "channels": (list,),
}  # fmt: skip
KEEPS = ("largest_component",)


def uses_medseg(workflows: Sequence[Workflow]) -> bool:
    """Say whether a bundle's configs are made of parts of medseg.

    Args:
        workflows: The workflows.
    """
    nodes = (value for workflow in workflows for _, value in workflow.nodes())
    return any(
        isinstance(value, dict) and str(value.get("_target_")).startswith("medseg.")
        for value in nodes
    )


def check_own_part(metadata: dict[str, Any], workflows: Sequence[Workflow]) -> Iterator[Fault]:
    """Check the fields of the part `medseg`; bundles made elsewhere need none.

    Args:
        metadata: Content of metadata.json.
        workflows: The workflows.

    Yields:
        Faults `metadata-type`, `metadata-missing`, `bad-activation`, `bad-postprocessing` and
        `label-missing`, warnings `unknown-field`.
    """
    if "medseg" not in metadata:
        if uses_medseg(workflows):
            rule = "the part medseg: labels with colours, what input it is for"
            do = 'add "medseg": {"activation": "softmax", "labels": [...], "input": {...}}'
            found = "(none)"
            yield Fault("metadata-missing", METADATA, "medseg", found, rule, do, severity="warning")
        return
    own = metadata["medseg"]
    if not isinstance(own, dict):
        yield _type("medseg", own, (dict,))
        return
    yield from _fields("medseg", own, FIELDS)
    activation = own.get("activation", "softmax")
    if isinstance(activation, str) and activation not in ACTIVATIONS:
        rule = "softmax, where classes exclude each other, or sigmoid, where regions may overlap"
        do = f"write {nearest(activation, ACTIVATIONS) or ' or '.join(ACTIVATIONS)}"
        found = shown(activation)
        yield Fault("bad-activation", METADATA, "medseg#activation", found, rule, do)
    if "labels" not in own:
        rule = "names and colours of the labels"
        do = 'add [{"index": 1, "name": ..., "color": [r, g, b]}, ...]'
        yield Fault("label-missing", METADATA, LABELS, "(none)", rule, do, severity="warning")
    if isinstance(own.get("input"), dict):
        yield from _fields("medseg#input", own["input"], INPUT_FIELDS)
    for place, name in enumerate(_list(own.get("ensemble"))):
        if not isinstance(name, str):
            yield _type(f"medseg#ensemble#{place}", name, (str,))
    names = get(metadata, f"{FORMAT}#outputs#pred#channel_def")
    known = [str(name) for name in names.values()] if isinstance(names, dict) else []
    for place, step in enumerate(_list(own.get("postprocessing"))):
        yield from _step(f"medseg#postprocessing#{place}", step, known)


def _fields(key: str, values: dict[str, Any], known: dict[str, Kinds]) -> Iterator[Fault]:
    for name, value in values.items():
        place = f"{key}#{name}"
        if name not in known:
            if meant := nearest(name, [other for other in known if other not in values]):
                rule = shown(f"one of {', '.join(known)}")
                found = (METADATA, place, shown(value))
                yield Fault("unknown-field", *found, rule, f"write {meant}", severity="warning")
        elif not isinstance(value, known[name]) or (
            isinstance(value, bool) and bool not in known[name]
        ):
            yield _type(place, value, known[name])


def _type(key: str, value: Any, wanted: Kinds) -> Fault:
    kinds = " or ".join(one.__name__ for one in wanted if one is not type(None))
    do = f"write {key.rpartition('#')[2]} as {kinds}"
    return Fault("metadata-type", METADATA, key, shown(value), f"a value of type {kinds}", do)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _step(key: str, step: Any, names: list[str]) -> Iterator[Fault]:
    rule = f'{{"label": name, "keep": "{KEEPS[0]}"}}'
    if not isinstance(step, dict) or not {"label", "labels"} & set(step):
        place = (METADATA, key, shown(step))
        do = "name the label and what to keep"
        yield Fault("bad-postprocessing", *place, f"a step as {rule}", do)
        return
    if step.get("keep") not in KEEPS:
        place = (METADATA, f"{key}#keep", shown(step.get("keep")))
        yield Fault("bad-postprocessing", *place, KEEPS[0], f"write {KEEPS[0]}")
    field = "label" if "label" in step else "labels"
    for name in [step["label"]] if field == "label" else _list(step["labels"]):
        if names and name not in names:
            place = (METADATA, f"{key}#{field}", shown(name))
            do = f"write {nearest(str(name), names) or 'one of them'}"
            yield Fault("bad-postprocessing", *place, shown(f"a label: {', '.join(names)}"), do)
