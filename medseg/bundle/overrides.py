"""`KEY=VALUE` from the command line, for values that a bundle's configs state."""

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from medseg.bundle.check.documents import look_up, nodes_of, read_document, set_key
from medseg.bundle.check.fault import nearest, shown
from medseg.errors import BundleError, UsageError
from medseg.io.atomic import write_text

ANYTHING = "anything"
TEXT = "text"
WHOLE = "a whole number"
NUMBER = "a number"
KINDS: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),  # before int, whose kind it is too
    (int, WHOLE),
    (float, NUMBER),
    (str, TEXT),
    (list, "a list"),
    (dict, "a table of keys and values"),
)
"""Python's types and what they are called; null may be anything."""

LEAST: Mapping[str, int | float] = {
    "epochs": 1,
    "iterations_per_epoch": 1,
    "batch_size": 1,
    "val_interval": 1,
    "num_workers": 0,
    "lr": 0.0,
}
"""Key of medseg's train.yaml to its least value; the learning rate has to be above it."""


def merge_configs(files: Sequence[Path]) -> dict[str, Any]:
    """Merge config files as MONAI does; nothing in them is evaluated.

    Args:
        files: YAML or JSON files, in loading order.

    Returns:
        The merged configs; `%` macros and relative references stand as written.

    Raises:
        BundleError: If a file does not parse, or overrides a key that is not there
            (code `bad-config`); `medseg bundle check` lists all faults.
    """
    merged: dict[str, Any] = {}
    for file in files:
        document, faults = read_document(file, file.name)
        if document is None:
            fault = faults[-1]
            place = " ".join(filter(None, (file.name, fault.key)))
            do = fault.suggestion[0].upper() + fault.suggestion[1:]
            msg = f"{place} must be {fault.expected}, got: {fault.value}. {do}."
            raise BundleError(msg, code="bad-config")
        for key, value in document.items():
            try:
                set_key(merged, str(key).replace("::", "#"), value)
            except KeyError as error:
                msg = f"{file.name} must override keys that exist, got {key!r}."
                raise BundleError(msg, code="bad-config") from error
    return merged


def parse_overrides(texts: Sequence[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """Read `KEY=VALUE` texts and refuse keys that the configs do not have.

    Args:
        texts: For example `epochs=10` or `train#trainer#max_epochs=5`; the value is YAML, or a
            MONAI expression that starts with `$`, `@` or `%`. A key can be nested with `#` or `::`.
        config: The merged configs, as `merge_configs` gives them.

    Returns:
        Key, its parts joined by `#`, to value; as `monai.bundle.ConfigParser.update` takes them.

    Raises:
        UsageError: If a text is no `KEY=VALUE` (`bad-override`), a key does not exist
            (`unknown-key`, with the nearest ones), a value is of another kind than the one it
            takes the place of, or below `LEAST` (`bad-override`). Null takes any place but of a
            key of `LEAST`, and anything takes the place of null or of an expression.

    Examples:
        >>> parse_overrides(["epochs=10", "lr=1e-3"], {"epochs": 1000, "lr": 0.01})
        {'epochs': 10, 'lr': 0.001}
    """
    overrides: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip().replace("::", "#")
        if not equals or not key:
            msg = f"--set must be KEY=VALUE, got {text!r}. Write for example --set epochs=10."
            raise UsageError(msg, code="bad-override")
        try:
            old = look_up(config, key)
        except KeyError:
            raise UsageError(_unknown(key, config), code="unknown-key") from None
        overrides[key] = _value(key, value.strip(), old)
    return overrides


def apply_overrides(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Put overrides into the configs.

    Args:
        config: The merged configs; left as they are.
        overrides: Key, its parts joined by `#`, to value.

    Returns:
        New configs.
    """
    changed = _copied(config)
    for key, value in overrides.items():
        above, _, last = key.rpartition("#")
        parent = look_up(changed, above)
        parent[int(last) if isinstance(parent, list) else last] = value
    return dict(changed)


def write_scalar(file: Path, key: str, value: Any) -> None:
    """Change one value in a config file, and nothing else in it.

    Args:
        file: YAML, in which `key: value` stands on a line of its own.
        key: Key at the top.
        value: Text, number, boolean or null.

    Raises:
        BundleError: If there is no such line, or several (code `bad-config`).
        OutputError: If the file cannot be written.
    """
    line = re.compile(
        rf"^{re.escape(key)}:[ ]+(?P<value>[^#\n]*?)(?P<rest>[ ]*(#.*)?)$", re.MULTILINE
    )
    text = file.read_text(encoding="utf-8")
    found = line.findall(text)
    if len(found) != 1:
        msg = f"{file.name} must have one line with the key {key}, got {len(found)}."
        raise BundleError(msg, code="bad-config")
    plain = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and re.fullmatch(r"[a-z][a-z0-9_]*", value):
        plain = value
    write_text(file, line.sub(lambda match: f"{key}: {plain}{match['rest']}", text))


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _unknown(key: str, config: Mapping[str, Any]) -> str:
    known = [other for other, _ in nodes_of(dict(config))]
    near: list[str] = []
    for _ in range(3):
        if found := nearest(key, [other for other in known if other not in near]):
            near.append(found)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Top keys: {', '.join(config)}."
    return f"--set must name a key of the bundle's configs, got {key!r}. {hint}"


def _value(key: str, text: str, old: Any) -> Any:
    if text.startswith(("$", "@", "%")):
        if text.startswith("$"):
            _require_expression(key, text)
        return text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        msg = f"--set {key} must have a value in YAML, got {text!r}. Quote it."
        raise UsageError(msg, code="bad-override") from error
    value, old = _number(value), _as_literal(key, old)
    wanted = _kind(old)
    if wanted == WHOLE and isinstance(value, float) and value.is_integer():
        value = int(value)  # 1e3
    may_be_null = value is None and key not in LEAST
    if not (may_be_null or wanted in (ANYTHING, _kind(value)) or _widens(value, wanted)):
        msg = f"--set {key} must be {wanted} as {shown(old)} is, got {text!r}."
        raise UsageError(f"{msg} {_way_out(key, wanted)}", code="bad-override")
    if key in LEAST:
        _require_range(key, value, text)
    return value


def _as_literal(key: str, old: Any) -> Any:
    """Return an example of the kind that takes the place of a value; None for any kind."""
    is_code = isinstance(old, str) and old.startswith(("$", "@", "%"))
    if old is None or is_code:
        return LEAST.get(key)
    return old


def _widens(value: Any, wanted: str) -> bool:
    return wanted == NUMBER and _kind(value) == WHOLE


def _way_out(key: str, wanted: str) -> str:
    if wanted == TEXT:
        return "Quote it twice, as in KEY='\"7\"'."
    return "Correct the value." if key in LEAST else "Correct it, or write an expression after $."


def _require_range(key: str, value: Any, text: str) -> None:
    if not isinstance(value, int | float):
        return
    least, is_rate = LEAST[key], isinstance(LEAST[key], float)
    fits = 0 < value < math.inf if is_rate else value >= least
    if not fits:
        rule = "positive and finite" if is_rate else f"at least {least}"
        msg = f"--set {key} must be {rule}, got {text!r}. Correct the value."
        raise UsageError(msg, code="bad-override")


def _require_expression(key: str, text: str) -> None:
    try:
        ast.parse(text[1:].replace("::", "#").replace("@", "").replace("#", "_"), mode="eval")
    except (SyntaxError, ValueError) as error:
        msg = f"--set {key} must be a Python expression after the $, got {text!r}. Correct it."
        raise UsageError(msg, code="bad-override") from error


def _number(value: Any) -> Any:
    """Read `1e-3` as a number: YAML 1.1 asks for `1.0e-3`."""
    if isinstance(value, str):
        try:
            return float(value) if any(char.isdigit() for char in value) else value
        except ValueError:
            return value
    return value


def _kind(value: Any) -> str:
    if value is None:
        return ANYTHING
    for kind, name in KINDS:
        if isinstance(value, kind):
            return name
    return f"a {type(value).__name__}"
