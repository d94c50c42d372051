"""Files that a bundle must have."""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

from medseg.bundle.check.configs import Workflow
from medseg.bundle.check.documents import (
    REFERENCE,
    config_paths,
    get,
    is_expression,
    references_of,
    target_key,
)
from medseg.bundle.check.fault import Fault, shown
from medseg.bundle.folds import advice_on_folds

WEIGHTS = "models/model.pt"
SCRIPT = "models/model.ts"
"""TorchScript, which stands in for weights that are not there."""
OWN_FOLDERS = ("configs", "scripts", "docs")
"""Folders that a bundle is handed on with; others are made by running it."""

LOADING = ("evaluate", "inference")
"""Workflows that load weights; training, which shares a file with them, need not."""

LARGE_FILES = ("large_files.yml", "large_files.yaml", "large_files.json")
"""Where a bundle of the model zoo says what is to be downloaded, weights among it."""


def check_files(root: Path, *, imported: bool = False) -> Iterator[Fault]:
    """Find what is missing in the bundle's folder.

    Args:
        root: The bundle's folder.
        imported: It was made of a model of other software, which trains and evaluates it.

    Yields:
        Faults `missing-file` and `missing-config`.
    """
    if not (root / "configs").is_dir():
        yield _missing("configs", "a folder with the bundle's configs", "add it")
        return
    for name, what, do in (
        ("configs/metadata.json", "the bundle's metadata", "add it: version, authors, labels ..."),
        ("LICENSE", "the licence of weights and configs", "add the text of the licence"),
        ("docs/README.md", "the bundle's card", "say what it does, what it was trained on, scores"),
    ):
        if not (root / name).is_file():
            yield _missing(name, what, do)
        elif not (root / name).stat().st_size:
            yield Fault("missing-file", name, "", "empty", what, do)
    paths = config_paths(root)
    if "inference" not in paths:
        yield Fault(
            "missing-config",
            "configs/inference.yaml",
            "",
            "(no file)",
            "a config of inference, as YAML or JSON",
            "add it",
        )
    for name in () if imported else ("train", "evaluate"):
        if name not in paths:
            yield Fault(
                "missing-config",
                f"configs/{name}.yaml",
                "",
                "(no file)",
                f"a config for {name}",
                f"add it, or do without {name}",
                severity="warning",
            )
    yield from _named_in_card(root)


def _missing(name: str, what: str, do: str) -> Fault:
    return Fault("missing-file", name, "", "(no file)", what, do)


def _named_in_card(root: Path) -> Iterator[Fault]:
    card = root / "docs" / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    for name in sorted(set(re.findall(r"(?<![\w/])configs/\w+\.(?:yaml|yml|json)", text))):
        if not (root / name).is_file():
            yield Fault(
                "missing-file",
                "docs/README.md",
                "",
                name,
                "files that the bundle has",
                f"add {name}, or correct the card",
                severity="warning",
            )


def check_named_files(root: Path, workflows: Sequence[Workflow]) -> Iterator[Fault]:
    """Find files of the bundle that its configs name and that are not there.

    Args:
        root: The bundle's folder.
        workflows: The workflows.

    Yields:
        Faults `missing-file`.
    """
    for workflow in workflows:
        for key, value in workflow.nodes():
            if not is_expression(value):
                continue
            name = path_in_bundle(workflow, value)
            if name and name.partition("/")[0] in OWN_FOLDERS and not (root / name).exists():
                folder = (root / name).parent
                there = [one.name for one in folder.iterdir()] if folder.is_dir() else []
                meant = next(iter(get_close_matches(PurePosixPath(name).name, there, 1, 0.8)), None)
                do = f"write {meant}" if meant else f"add {name}, or correct the path"
                place = (workflow.file_of(key), key, shown(value))
                yield Fault("missing-file", *place, f"the file {name} of the bundle", do)


def weight_names(workflow: Workflow | None, metadata: dict[str, Any]) -> list[str]:
    """Return the weight files that inference reads, as the bundle states them.

    Args:
        workflow: Inference, if it can be read.
        metadata: Content of metadata.json.

    Returns:
        Names below the bundle's folder.
    """
    own = metadata.get("medseg")
    members = own.get("ensemble") if isinstance(own, dict) else None
    if isinstance(members, list) and members:
        return [name for name in members if isinstance(name, str)]
    loaded = [name for _, name in _checkpoints(workflow)] if workflow else []
    return loaded[:1] or [WEIGHTS]


def _checkpoints(workflow: Workflow) -> Iterator[tuple[str, str]]:
    """Yield each CheckpointLoader of a workflow with the file of the bundle that it reads."""
    for key, value in workflow.nodes():
        if not isinstance(value, dict) or value.get("_disabled_") is True:
            continue
        if str(value.get("_target_")).endswith("CheckpointLoader"):
            path = get(workflow.content, f"{key}#load_path")
            name = path_in_bundle(workflow, path) if isinstance(path, str) else None
            if name:
                yield key, name


def check_weight_files(
    root: Path, workflow: Workflow | None, metadata: dict[str, Any]
) -> Iterator[Fault]:
    """Find weights that are not there.

    Args:
        root: The bundle's folder.
        workflow: Inference, if it can be read.
        metadata: Content of metadata.json.

    Yields:
        Warnings `no-weights`.
    """
    own = metadata.get("medseg")
    command = own.get("train_command") if isinstance(own, dict) else None
    for name in weight_names(workflow, metadata):
        if (root / name).is_file() or (root / SCRIPT).is_file():
            continue
        if (root / WEIGHTS).is_file():
            do = f"write {WEIGHTS}, which is there, or add {name}"
        elif advice := advice_on_folds(root):
            do = advice
        elif any((root / large).is_file() for large in LARGE_FILES):
            do = "python -m monai.bundle download_large_files --bundle_path ."
        else:
            do = f"train it: {command or 'see docs/README.md'}"
        place = (name, "", "(no file)", "trained weights", do)
        yield Fault("no-weights", *place, severity="warning")


def check_checkpoints(
    root: Path, workflows: Sequence[Workflow], metadata: dict[str, Any]
) -> Iterator[Fault]:
    """Find checkpoints that evaluation and inference load and that are not there.

    Args:
        root: The bundle's folder.
        workflows: The workflows.
        metadata: Content of metadata.json.

    Yields:
        Warnings `missing-checkpoint`, in a bundle that has its weights.
    """
    inference = next((one for one in workflows if one.name == "inference"), None)
    there = [name for name in weight_names(inference, metadata) if (root / name).is_file()]
    if len(there) < len(weight_names(inference, metadata)):
        return
    for workflow in workflows:
        if not (workflow.complete and workflow.name in LOADING):
            continue
        for key, name in _checkpoints(workflow):
            if not (root / name).is_file():
                place = target_key(workflow.content, f"{key}#load_path")
                yield Fault(
                    "missing-checkpoint",
                    workflow.file_of(place),
                    place,
                    name,
                    f"a file that is there: monai.bundle run loads it for {workflow.name}",
                    f"copy {there[0]} to {name}, or write {there[0]}",
                    severity="warning",
                )


def path_in_bundle(workflow: Workflow, value: str) -> str | None:
    """Return the path that an expression such as `$@bundle_root + '/models/model.pt'` gives.

    Args:
        workflow: Where references are looked up.
        value: The expression; it is read, never run.

    Returns:
        Path below the bundle's folder in POSIX form; None where it leads elsewhere, or cannot be
        told.
    """
    text = _text(workflow, value)
    if text is None or not text.startswith(_ROOT):
        return None
    return str(PurePosixPath(text.removeprefix(_ROOT).lstrip("/")))


_ROOT = "<bundle>"


def _text(workflow: Workflow, value: Any, depth: int = 0) -> str | None:
    if not isinstance(value, str) or depth > 20:
        return None
    if not is_expression(value):
        found = references_of(value)
        return _of_key(workflow, found[0], depth) if found else value
    names: dict[str, str] = {}

    def placeholder(match: re.Match[str]) -> str:
        return names.setdefault(match[0][1:], f"reference_{len(names)}")

    text = REFERENCE.sub(placeholder, value[1:].replace("::", "#")).strip()
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError):
        return None
    keys = {name: key for key, name in names.items()}
    return _joined(workflow, tree.body, keys, depth)


def _of_key(workflow: Workflow, key: str, depth: int) -> str | None:
    if key == "bundle_root":
        return _ROOT
    return _text(workflow, get(workflow.content, key), depth + 1)


def _joined(workflow: Workflow, node: ast.expr, keys: Mapping[str, str], depth: int) -> str | None:
    """Return the text of constants and references that are added or joined as paths."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.Name):
        return _of_key(workflow, keys[node.id], depth) if node.id in keys else None
    between, parts = "", []
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = [node.left, node.right]
    elif isinstance(node, ast.Call) and ast.unparse(node.func) == "os.path.join":
        between, parts = "/", node.args
    texts = [_joined(workflow, part, keys, depth) for part in parts]
    known = [text for text in texts if text is not None]
    return between.join(known) if known and len(known) == len(texts) else None
