"""Keep of a bundle's configs what inference needs, and refuse what only a trusted one may do."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from medseg.bundle.check.documents import get, is_expression, look_up, nodes_of, references_of
from medseg.bundle.check.fault import shown
from medseg.bundle.removed import removed_of
from medseg.bundle.safety import expressions, targets
from medseg.bundle.safety.expressions import ATTRIBUTES, FUNCTIONS, UNPICKLING, Names, import_of

MODES = ("default", "callable")
"""Values of `_mode_`; the third stops in a debugger."""

TRAINING_FUNCTIONS = (
    r"os\.environ|torch\.cuda\.set_device|torch\.distributed\.(init_process_group|get_rank|get_world_size|is_initialized)"
    r"|torch\.distributed\.(barrier|destroy_process_group)"
    r"|monai\.data\.(load_decathlon_datalist|partition_dataset(_classes)?)"
    r"|monai\.utils\.set_determinism"
)
"""Functions and values of training, beside those of inference."""

TRAINING_ATTRIBUTES = frozenset(("prepare", "run"))
"""Methods of datasets and engines."""

_TARGET, _MODE = "_target_", "_mode_"


@dataclass(frozen=True)
class Unsafe:
    """Something in the configs that may run anything.

    Attributes:
        key: Where it stands.
        value: What stands there.
        reason: Why it may not run.
    """

    key: str
    value: str
    reason: str


def guarded(config: dict[str, Any], parts: Sequence[str]) -> tuple[dict[str, Any], list[Unsafe]]:
    """Return what some parts of the configs are made of, and what of it may run anything.

    All else is left out: MONAI runs every import of its configs, used or not.

    Args:
        config: Merged configs, macros and relative references resolved; changed.
        parts: Keys of the parts that will be built.

    Returns:
        The configs without the rest, and what only a trusted bundle may do, in no case both
        complete and unsafe.
    """
    _leave_to_medseg(config)
    reached = _reached(config, parts)
    names = Names(is_component=targets.is_component, fetches=targets.may_fetch)
    imports = [v for _, v in nodes_of(config) if is_expression(v) and import_of(v)]
    allowed = [text for text in imports if names.take(text)]
    unsafe: list[Unsafe] = []
    for key in reached:
        value = look_up(config, key)
        for place, node in [(key, value), *nodes_of(value, key)]:
            unsafe += _of_node(place, node, names, targets.reason_against)
    kept = _kept(config, "", reached)
    kept["imports"] = allowed
    return kept, list(dict.fromkeys(unsafe))


def unsafe_parts(config: dict[str, Any], parts: Sequence[str]) -> list[Unsafe]:
    """Return what of some parts of the configs may run anything.

    Args:
        config: As `guarded` takes it.
        parts: Keys of the parts.
    """
    return guarded(config, parts)[1]


def _leave_to_medseg(config: dict[str, Any]) -> None:
    for _, value in nodes_of(config):
        if (
            isinstance(value, dict)
            and str(value.get(_TARGET)).rpartition(".")[2] in targets.LEFT_TO_MEDSEG
        ):
            reader = value.get("reader")
            is_ours = isinstance(reader, dict) and str(reader.get(_TARGET)).startswith("medseg.")
            for name in [name for name in value if name not in (_TARGET, "keys")]:
                if not (is_ours and name in ("reader", "allow_missing_keys")):
                    del value[name]


def _reached(config: dict[str, Any], parts: Sequence[str]) -> dict[str, None]:
    """Return the keys that parts are made of, references followed."""
    waiting, reached = list(parts), dict[str, None]()
    while waiting:
        key = waiting.pop()
        if key in reached:
            continue
        try:
            value = look_up(config, key)
        except KeyError:  # said when the part is built
            continue
        reached[key] = None
        for _, node in [(key, value), *nodes_of(value, key)]:
            waiting += references_of(node)
    return reached


def unsafe_training(config: dict[str, Any]) -> list[Unsafe]:
    """Return what of the configs of a training may run anything.

    All of it is looked at: a training runs its configs as they stand.

    Args:
        config: Merged configs, macros and relative references resolved.
    """
    names = Names(
        is_component=targets.is_part_of_training,
        fetches=targets.may_fetch,
        functions=re.compile(f"{FUNCTIONS.pattern}|{TRAINING_FUNCTIONS}"),
        attributes=ATTRIBUTES | TRAINING_ATTRIBUTES,
    )
    for _, value in nodes_of(config):
        if is_expression(value) and import_of(value):
            names.take(value)
    unsafe: list[Unsafe] = []
    for key, node in nodes_of(config):
        unsafe += _of_node(key, node, names, targets.training_reason_against)
        unsafe += _of_named_code(config, key, node)
        for one in removed_of(node, key) if isinstance(node, dict) else ():
            if one.fetches:
                unsafe.append(
                    Unsafe(one.key, shown(node.get(one.name, True)), "it fetches weights")
                )
    return list(dict.fromkeys(unsafe))


def _of_named_code(config: dict[str, Any], key: str, node: Any) -> Iterator[Unsafe]:
    """Yield readers and writers that are not named as those of MONAI: it imports what is named."""
    target = str(node.get(_TARGET)).rpartition(".")[2] if isinstance(node, dict) else ""
    for name in ("reader", "writer") if target in targets.LEFT_TO_MEDSEG else ():
        place = f"{key}#{name}"
        value = get(config, place)
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and not _is_of_monai_data(one):
                yield Unsafe(place, shown(one), "it is not the name of a class of monai.data")


def _is_of_monai_data(name: str) -> bool:
    import monai.data  # noqa: PLC0415  # slow to import
    from monai.transforms.io.array import SUPPORTED_READERS  # noqa: PLC0415

    plain = name.removeprefix("$monai.data.")
    return "." not in plain and (
        hasattr(monai.data, plain) or (plain == name and name.lower() in SUPPORTED_READERS)
    )


def _of_node(key: str, node: Any, names: Names, against: Callable[[str], str]) -> Iterator[Unsafe]:
    if isinstance(node, dict):
        if reason := _reason_of_component(node, against):
            yield Unsafe(f"{key}#{_TARGET}", shown(node.get(_TARGET)), reason)
        for name, safe in UNPICKLING.items():
            if name in node and node[name] is not safe:
                yield Unsafe(f"{key}#{name}", shown(node[name]), "it may be told to unpickle")
        for name in node:
            if not isinstance(name, str) or "#" in name or "::" in name:
                yield Unsafe(key, shown(str(name)), "keys within keys hide what they stand for")
    elif isinstance(node, str) and node.startswith("%"):
        yield Unsafe(key, shown(node), "a macro within a macro is not resolved")
    elif is_expression(node) and (reason := _reason_of_expression(node, names)):
        yield Unsafe(key, shown(node), reason)


def _reason_of_component(node: dict[str, Any], against: Callable[[str], str]) -> str:
    if _TARGET not in node:
        return ""
    target = node[_TARGET]
    if not isinstance(target, str) or target.startswith(("$", "@", "%")):
        return "the class is not named, but comes from elsewhere"
    if node.get(_MODE, MODES[0]) not in MODES:
        return f"{_MODE} is not one of {', '.join(MODES)}"
    reason = against(target)
    return "" if reason == targets.NOT_FOUND else reason  # which is said when it is built


def _reason_of_expression(text: str, names: Names) -> str:
    from monai.bundle import ReferenceResolver  # noqa: PLC0415  # slow to import

    if import_of(text) is not None:
        return "" if names.take(text) else "its code is the bundle's own, or not known"
    # the very text that MONAI will evaluate
    plain: str = ReferenceResolver.update_refs_pattern(
        text, ReferenceResolver.match_refs_pattern(text)
    )
    return expressions.reason_against(plain[1:], names)


def _kept(value: Any, key: str, reached: dict[str, None]) -> Any:
    """Return a part of the configs without what is not reached."""
    if key in reached:
        return value
    below = f"{key}#" if key else ""
    if not any(other.startswith(below) for other in reached) or not isinstance(value, dict | list):
        return {} if not key else None
    if isinstance(value, list):
        return [_kept(one, f"{below}{number}", reached) for number, one in enumerate(value)]
    return {
        name: _kept(one, f"{below}{name}", reached)
        for name, one in value.items()
        if name != _TARGET  # parts of it are used, and not itself
    }
