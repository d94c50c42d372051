"""Read the configs of a bundle, and look into them, without running anything in them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from medseg.bundle.check.fault import Fault, shown

SUFFIXES = (".yaml", ".yml", ".json")
WORKFLOWS = {
    "train": ("common", "train"),
    "multi_gpu_train": ("common", "train", "multi_gpu_train"),
    "evaluate": ("common", "train", "evaluate"),
    "multi_gpu_evaluate": ("common", "train", "evaluate", "multi_gpu_evaluate"),
    "inference": ("common", "inference"),
    "inference_trt": ("common", "inference", "inference_trt"),
}
"""Workflow to the files it is made of, in loading order; those that a bundle lacks are left out."""

DEEPEST = 100
"""Levels of lists and tables that are looked into; Python's own limit is ten times as far."""

KEYS_AT_THE_TOP = "keys and values at the top"
"""What a config or the metadata must hold."""

REFERENCE = re.compile(r"@\w*(?:#\w*)*")
"""As in MONAI 1.6's `ReferenceResolver.id_matcher`, for ids whose parts are joined by `#`."""


def nodes_of(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every key of every depth with its value.

    Args:
        config: Nested dicts and lists; of anything else nothing is yielded.
        prefix: Key of the config itself.

    Yields:
        Key, its parts joined by `#`, and value; a parent before its children.
    """
    if not isinstance(config, dict | list):
        return
    pairs = config.items() if isinstance(config, dict) else enumerate(config)
    for name, value in pairs:
        key = f"{prefix}#{name}" if prefix else str(name)
        yield key, value
        if isinstance(value, dict | list):
            yield from nodes_of(value, key)


def is_expression(value: Any) -> bool:
    """Say whether MONAI would evaluate a value.

    Args:
        value: Value of a config.
    """
    return isinstance(value, str) and value.startswith("$")


def references_of(value: Any) -> list[str]:
    """Return the keys that a value refers to.

    Args:
        value: Value of a config; of dicts and lists the children are not looked at.

    Returns:
        Keys, parts joined by `#`.

    Examples:
        >>> references_of("$@train#dataset + @lr")
        ['train#dataset', 'lr']
        >>> references_of("someone@example.org")
        []
    """
    if not isinstance(value, str):
        return []
    text = value.replace("::", "#")
    found = REFERENCE.findall(text)
    if not is_expression(text) and found != [text]:
        return []
    return [item[1:] for item in found if item != "@"]


def look_up(config: Any, key: str) -> Any:
    """Return what stands at a key.

    Args:
        config: Nested dicts and lists.
        key: Key, parts joined by `#`; empty for the config itself.

    Returns:
        The value.

    Raises:
        KeyError: If there is nothing.
    """
    for part in key.split("#") if key else []:
        try:
            config = config[int(part)] if isinstance(config, list) else config[part]
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise KeyError(key) from error
    return config


def get(config: Any, key: str, default: Any = None) -> Any:
    """Return what stands at a key, following references, or a default.

    Args:
        config: Nested dicts and lists.
        key: Key, parts joined by `#`.
        default: What is returned where there is nothing, or references lead in a circle.

    Returns:
        The value; an expression stays text.
    """
    for _ in range(20):  # a longer chain of references is a circle
        try:
            value = look_up(config, key)
        except KeyError:
            return default
        found = references_of(value)
        if is_expression(value) or not found:
            return value
        key = found[0]
    return default


def missing_part(config: Any, key: str) -> str:
    """Return the key that would have to be there, or hold keys, for another one to exist.

    Args:
        config: Nested dicts and lists.
        key: Key that is not there, parts joined by `#`.

    Returns:
        The key or one above it.

    Examples:
        >>> missing_part({"train": {}}, "train#trainer#max_epochs")
        'train#trainer'
        >>> missing_part({"train": "text"}, "train#trainer#max_epochs")
        'train'
    """
    parts = key.split("#")
    for length in range(1, len(parts)):
        above = "#".join(parts[:length])
        try:
            value = look_up(config, above)
        except KeyError:
            return above
        is_open = isinstance(value, dict) or (isinstance(value, list) and parts[length].isdigit())
        if not is_open:
            return above
    return key


def target_key(config: Any, key: str) -> str:
    """Follow references from a key to the one that states the value.

    Args:
        config: Nested dicts and lists.
        key: Key, parts joined by `#`.

    Returns:
        The last key of the chain; the given one where nothing stands there.
    """
    for _ in range(20):  # a longer chain of references is a circle
        try:
            value = look_up(config, key)
        except KeyError:
            return key
        found = references_of(value)
        if is_expression(value) or not found:
            return key
        key = found[0]
    return key


def read_documents(root: Path) -> tuple[dict[str, dict[str, Any]], list[Fault]]:
    """Read every config file of a bundle.

    Args:
        root: The bundle's folder.

    Returns:
        Stem of the file name to content, `metadata` included, of the files that parse; and the
        faults of the others.
    """
    documents: dict[str, dict[str, Any]] = {}
    faults: list[Fault] = []
    for stem, path in config_paths(root).items():
        name = path.relative_to(root).as_posix()
        document, found = read_document(path, name)
        faults += found
        if document is not None:
            documents[stem] = document
    for path in sorted((root / "configs").glob("*")):
        if path.suffix in SUFFIXES and path not in config_paths(root).values():
            faults += _of_other_file(path, path.relative_to(root).as_posix())
    return documents, faults


def _of_other_file(path: Path, name: str) -> list[Fault]:
    """Return what keeps a file that belongs to no workflow from being read."""
    _, faults = read_document(path, name)
    return [fault for fault in faults if fault.expected != KEYS_AT_THE_TOP]


def config_paths(root: Path) -> dict[str, Path]:
    """Return the config files that a bundle's workflows are made of.

    Args:
        root: The bundle's folder.

    Returns:
        Stem of the file name to path.
    """
    stems = {stem for stems in WORKFLOWS.values() for stem in stems}
    paths: dict[str, Path] = {}
    for stem in sorted(stems):
        for suffix in SUFFIXES:
            path = root / "configs" / f"{stem}{suffix}"
            if path.is_file():
                paths.setdefault(stem, path)
    metadata = root / "configs" / "metadata.json"
    return {**paths, "metadata": metadata} if metadata.is_file() else paths


def read_document(path: Path, name: str) -> tuple[dict[str, Any] | None, list[Fault]]:
    """Read one config file.

    Args:
        path: YAML or JSON file.
        name: Name of the file in faults.

    Returns:
        The content, None where it cannot be read; and its faults.
    """
    twice: list[tuple[int, str]] = []
    document, fault = _parsed(path, name, twice)
    if fault:
        return None, [fault]
    faults = [
        Fault(
            "duplicate-key",
            name,
            f"line {line}" if line else key,
            key,
            "every key once: only the last one counts",
            f"remove one of the two {key!r}",
        )
        for line, key in twice
    ]
    if not isinstance(document, dict):
        kind = type(document).__name__
        return None, [*faults, _unparsed(name, "", f"a {kind}", KEYS_AT_THE_TOP)]
    return document, faults


def _parsed(path: Path, name: str, twice: list[tuple[int, str]]) -> tuple[Any, Fault | None]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            document = json.loads(text, object_pairs_hook=lambda pairs: _pairs(pairs, twice))
        else:
            document = _load_yaml(text, twice)
        circle = _circle(document)
    except (OSError, UnicodeDecodeError) as error:
        return None, _unparsed(name, "", str(error), "readable text in UTF-8")
    except json.JSONDecodeError as error:
        return None, _unparsed(name, f"line {error.lineno}", error.msg, "valid JSON")
    except yaml.YAMLError as error:
        return None, _not_yaml(name, error)
    except RecursionError:
        problem = "values too deep in one another"
        return None, _unparsed(name, "", problem, f"at most {DEEPEST} levels")
    if circle:
        problem, rule = "an alias of what it stands in", "a value that does not hold itself"
        return None, _unparsed(name, circle, problem, rule, "write the value itself")
    return document, None


def _unparsed(file: str, place: str, problem: str, rule: str, do: str = "") -> Fault:
    do = do or f"correct {place or 'the file'}"
    return Fault("unparsable", file, place, shown(problem), rule, do)


def _not_yaml(file: str, error: yaml.YAMLError) -> Fault:
    mark = getattr(error, "problem_mark", None)
    line = f"line {mark.line + 1}" if mark else ""
    problem = getattr(error, "problem", "") or str(error)
    return _unparsed(file, line, problem, "YAML", getattr(error, "note", "") or "")


def _circle(document: Any) -> str:
    """Return the key of a value that is the alias of one it stands in; empty without one."""
    done: set[int] = set()

    def below(value: Any, key: str, above: frozenset[int]) -> str:
        if not isinstance(value, dict | list) or id(value) in done:
            return ""
        above |= {id(value)}
        if len(above) > DEEPEST:
            raise RecursionError
        for name, child in value.items() if isinstance(value, dict) else enumerate(value):
            place = f"{key}#{name}" if key else str(name)
            if id(child) in above:
                return place
            if found := below(child, place, above):
                return found
        done.add(id(value))
        return ""

    return below(document, "", frozenset())


def _pairs(pairs: list[tuple[str, Any]], twice: list[tuple[int, str]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in pairs:
        if key in document:
            twice.append((0, key))
        document[key] = value
    return document


_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Eight times as fast where PyYAML was built with libyaml."""


def _load_yaml(text: str, twice: list[tuple[int, str]]) -> Any:
    class Loader(_SafeLoader):  # type: ignore[misc]  # chosen when imported
        """Notes keys that stand twice."""

        def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
            try:
                return super().construct_object(node, deep)
            except (ValueError, LookupError, AttributeError) as error:  # of PyYAML: 2026-13-01
                problem = f"{node.value!r} is no {node.tag.rpartition(':')[2]}: {error}"
                raise ConstructorError(None, None, problem, node.start_mark) from error

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
            seen = set()
            for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                if not isinstance(key_node, yaml.ScalarNode):
                    problem = "a table or a list as a key, as {{ name }} is"
                    note = "quote the text, or write a name as the key"
                    raise ConstructorError(None, None, problem, key_node.start_mark, note)
                if key_node.value in seen:
                    twice.append((key_node.start_mark.line + 1, str(key_node.value)))
                seen.add(key_node.value)
            return super().construct_mapping(node, deep)

    return yaml.load(text, Loader)  # a SafeLoader


def set_key(config: dict[str, Any], key: str, value: Any) -> None:
    """Set a key as MONAI does when it merges files: `a#b` reaches into `a`, `+a` adds to `a`.

    Args:
        config: The configs so far; changed.
        key: Key, parts joined by `#`.
        value: The value.

    Raises:
        KeyError: If there is nothing to reach into.
    """
    adding, key = key.startswith("+"), key.removeprefix("+")
    above, _, last = key.rpartition("#")
    parent = look_up(config, above)
    if not isinstance(parent, dict):
        look_up(parent, last)  # a list has no new positions, a value no keys
    place: Any = int(last) if isinstance(parent, list) else last
    old = parent.get(last) if isinstance(parent, dict) else parent[place]
    if adding and isinstance(old, list) and isinstance(value, list):
        old.extend(value)
    elif adding and isinstance(old, dict) and isinstance(value, dict):
        old.update(value)
    else:
        parent[place] = value
