"""`KEY=VALUE` from the command line, for values that a bundle's configs state."""

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from medseg.bundle.check.documents import look_up, nodes_of, read_document, set_key
from medseg.bundle.check.fault import nearest, shown
from medseg.errors import BundleError, UsageError


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
            (`unknown-key`, with the nearest ones), or a value is of another kind than the one it
            takes the place of (`bad-override`).

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
    value = _number(value)
    wanted = _kind(old)
    if isinstance(value, str) and wanted not in ("text", "nothing"):
        msg = f"--set {key} must be {wanted} as {shown(old)} is, got {text!r}."
        raise UsageError(f"{msg} Correct the value.", code="bad-override")
    return value


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


def _kind(old: Any) -> str:
    if old is None:
        return "nothing"
    if isinstance(old, str):
        return "text"
    if isinstance(old, bool):
        return "true or false"
    if isinstance(old, int | float):
        return "a number"
    return "a list" if isinstance(old, list) else "a table of keys and values"
