"""Whether images are prepared for inference and evaluation as they were for training."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from medseg.bundle.check.configs import Workflow
from medseg.bundle.check.documents import (
    REFERENCE,
    get,
    is_expression,
    nodes_of,
    references_of,
    target_key,
)
from medseg.bundle.check.fault import Fault, shown

IMAGE = "image"
READING = ("Load", "EnsureChannelFirst", "EnsureType", "ToDevice", "ToTensor", "Identity")
"""Starts of the names of transforms that bring the image in; training may read elsewhere."""

CROPPING = ("SpatialPad", "CropForeground", "CenterSpatialCrop", "DivisiblePad", "ResizeWithPad")
"""Starts of the names of transforms that move no voxel and change no value."""

NOT_COMPARED = {"_target_", "_desc_", "keys", "allow_missing_keys"}


@dataclass(frozen=True)
class Step:
    """One transform of the image.

    Attributes:
        key: Where it stands.
        name: Name of its class, without module.
        arguments: Its arguments for the image, references followed.
    """

    key: str
    name: str
    arguments: dict[str, Any]


def check_preprocessing(train: Workflow, inference: Workflow) -> Iterator[Fault]:
    """Compare the transforms of inference with those of training up to augmentation.

    Args:
        train: Training.
        inference: Inference or evaluation.

    Yields:
        Faults `preprocessing-differs`.
    """
    wanted, more = _training_steps(train)
    found = _steps(inference, "preprocessing")
    if wanted is None or found is None:
        return
    found = [step for step in found if not step.name.startswith(CROPPING)]
    pairs = SequenceMatcher(None, [s.name for s in wanted], [s.name for s in found], False)
    for kind, start, end, other_start, other_end in pairs.get_opcodes():
        if kind == "equal":
            both = zip(wanted[start:end], found[other_start:other_end], strict=True)
            for expected, step in both:
                yield from _differences(inference, expected, step)
            continue
        for step in wanted[start:end]:
            yield _absent(inference, train, step)
        for step in found[other_start:other_end]:
            if step.name not in more:
                yield _surplus(inference, step)


def _differences(inference: Workflow, expected: Step, step: Step) -> Iterator[Fault]:
    for name in sorted({*expected.arguments, *step.arguments}):
        value = step.arguments.get(name, "(default)")
        wanted = expected.arguments.get(name, "(default)")
        if value != wanted and _is_settled([value, wanted]):
            place = f"{step.key}#{name}"
            yield Fault(
                "preprocessing-differs",
                inference.file_of(place),
                place,
                shown(value) + _origin(inference, place),
                shown(f"as in training: {shown(wanted)}"),
                f"state {name} of {step.name} once in common, or train again",
            )


def _origin(workflow: Workflow, place: str) -> str:
    """Return the place of another file that a value comes from; empty where there is none."""
    key = target_key(workflow.content, place)
    file = workflow.file_of(key)
    return "" if file == workflow.file_of(place) else f", which is {key} of {file}"


def _absent(inference: Workflow, train: Workflow, step: Step) -> Fault:
    file = inference.file_of("preprocessing")
    text = f"{step.name}, which training has at {step.key} of {train.file_of(step.key)}"
    do = f"add {step.name} to the preprocessing of {inference.name}, or train again"
    return Fault("preprocessing-differs", file, "preprocessing", f"no {step.name}", text, do)


def _surplus(inference: Workflow, step: Step) -> Fault:
    return Fault(
        "preprocessing-differs",
        inference.file_of(step.key),
        step.key,
        step.name,
        "transforms that training has as well",
        f"remove {step.name} from {inference.name}, or train again with it",
    )


def _training_steps(train: Workflow) -> tuple[list[Step] | None, set[str]]:
    """Return the steps before the first random one, and the names of those that come later."""
    for key in ("train#dataset#transform", "train#dataset#transforms", "train#preprocessing"):
        steps = _steps(train, key)
        if steps is not None:
            break
    else:
        steps = None
    source = get(train.content, "train#source")
    if get(train.content, "train#dataset#source") is not None and not isinstance(source, dict):
        return None, set()
    if steps is None or (isinstance(source, dict) and "transforms" in source):
        steps = _steps(train, "train#source#transforms")  # patches are drawn from a cached source
    if steps is None:
        steps = _steps(train, "preprocessing")
    if steps is None:
        return None, set()
    first = next((i for i, step in enumerate(steps) if step.name.startswith("Rand")), len(steps))
    before = [step for step in steps[:first] if not step.name.startswith(CROPPING)]
    return before, {step.name for step in steps[first:]}


def _steps(workflow: Workflow, key: str) -> list[Step] | None:
    """Return the transforms of the image at a key; None where they cannot be told."""
    items = _items(workflow, key)
    if items is None:
        return None
    steps = []
    for place, item in items:
        if not isinstance(item, dict) or "_target_" not in item:
            return None
        if not _is_settled(item["_target_"]):
            return None
        name = str(item["_target_"]).rpartition(".")[2]
        keys = _plain(workflow, item.get("keys", IMAGE))
        keys = [keys] if isinstance(keys, str) else keys
        if not isinstance(keys, list) or any(references_of(name) for name in keys):
            return None
        if IMAGE not in keys:
            continue
        if not name.startswith(READING):
            steps.append(Step(place, name, _arguments(workflow, item, keys)))
    return steps


def _items(workflow: Workflow, key: str) -> list[tuple[str, Any]] | None:
    """Return the elements of a list of transforms, of a Compose, or of a sum of such lists."""
    key = target_key(workflow.content, key)
    value = get(workflow.content, key)
    if isinstance(value, dict) and "transforms" in value:
        return _items(workflow, f"{key}#transforms")
    if is_expression(value):
        parts = _summands(value)
        lists = [_items(workflow, part) for part in parts or ()]
        if not lists or any(one is None for one in lists):
            return None
        return [item for one in lists for item in one or ()]
    if not isinstance(value, list):
        return None
    places = [target_key(workflow.content, f"{key}#{index}") for index in range(len(value))]
    return [(place, get(workflow.content, place)) for place in places]


def _summands(expression: str) -> list[str] | None:
    """Return the keys of `$@a + @b`, None for any other expression."""
    keys = references_of(expression)
    text = expression[1:].replace("::", "#")
    for key in sorted(keys, key=len, reverse=True):
        text = text.replace(f"@{key}", "a")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError:
        return None
    allowed = (ast.Expression, ast.BinOp, ast.Add, ast.Name, ast.Load)
    return keys if all(isinstance(node, allowed) for node in ast.walk(tree)) else None


def _arguments(workflow: Workflow, item: dict[str, Any], keys: Any) -> dict[str, Any]:
    arguments = {}
    for name, value in item.items():
        if name in NOT_COMPARED:
            continue
        plain = _plain(workflow, value)
        if isinstance(plain, dict) and "_target_" not in plain and IMAGE in plain:
            plain = plain[IMAGE]
        if isinstance(keys, list) and isinstance(plain, list) and _is_one_a_key(name, plain, keys):
            plain = plain[keys.index(IMAGE)]
        arguments[name] = plain
    return arguments


def _is_one_a_key(name: str, value: list[Any], keys: list[Any]) -> bool:
    lists_of_their_own = {"pixdim", "spacing_mm", "spacing_px", "roi_size", "spatial_size"}
    return len(value) == len(keys) and name not in lists_of_their_own


def _is_settled(value: Any) -> bool:
    """Whether nothing is left in a value that leads nowhere and is reported as such."""
    if not isinstance(value, str):
        return all(_is_settled(item) for _, item in nodes_of(value))
    if is_expression(value):
        try:
            ast.parse(REFERENCE.sub("a", value[1:].replace("::", "#")).strip())
        except (SyntaxError, ValueError):
            return False
        return bool(value[1:].strip())
    return not value.startswith(("@", "%"))


def _plain(workflow: Workflow, value: Any, depth: int = 0) -> Any:
    """Follow references; an expression becomes its text and what it refers to."""
    if depth > 20:
        return value
    if isinstance(value, dict):
        return {name: _plain(workflow, item, depth + 1) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(workflow, item, depth + 1) for item in value]
    found = references_of(value)
    if not found:
        return value
    if is_expression(value):
        parts = {key: _plain(workflow, get(workflow.content, key), depth + 1) for key in found}
        return {"expression": value, **parts}
    return _plain(workflow, get(workflow.content, found[0]), depth + 1)


def check_network(train: Workflow, inference: Workflow) -> Iterator[Fault]:
    """Compare the network of inference with the one that is trained.

    Args:
        train: Training.
        inference: Inference or evaluation.

    Yields:
        Faults `network-differs`.
    """
    key = "network_def"
    wanted, found = _plain(train, f"@{key}"), _plain(inference, f"@{key}")
    if not isinstance(wanted, dict) or not isinstance(found, dict):
        return
    for name in sorted({*wanted, *found} - WITHOUT_WEIGHTS):
        value, trained = found.get(name, "(default)"), wanted.get(name, "(default)")
        if value != trained and _is_settled([value, trained]):
            place = target_key(inference.content, f"{key}#{name}")
            other = target_key(train.content, f"{key}#{name}")
            rule = f"as in training: {shown(trained)} ({other} of {train.file_of(other)})"
            do = f"write {shown(trained)}, or train again"
            file = inference.file_of(place)
            yield Fault("network-differs", file, place, shown(value), shown(rule), do)


WITHOUT_WEIGHTS = frozenset(
    {
        "deep_supervision", "dropout", "dropout_prob", "dropout_rate", "drop_rate",
        "attn_drop_rate", "dropout_path_rate", "use_checkpoint", "_mode_", "_desc_",
    }
)  # fmt: skip
"""Arguments of networks that may differ: the weights of inference are the same with either."""
