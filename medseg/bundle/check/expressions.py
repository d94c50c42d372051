"""`$` expressions: parsed, never run."""

import ast
import builtins
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from medseg.bundle.check.configs import Workflow
from medseg.bundle.check.documents import REFERENCE, is_expression
from medseg.bundle.check.fault import Fault, nearest, shown

GLOBALS = {"monai": "monai", "torch": "torch", "np": "numpy", "numpy": "numpy"}
"""Names that MONAI 1.6 gives to every expression, and the modules they stand for."""

PROVIDERS = (
    "medseg.data", "medseg.training", "medseg.transforms", "medseg.losses", "medseg.networks",
    "monai.data", "monai.handlers", "monai.transforms", "monai.utils",
)  # fmt: skip
"""Modules whose names expressions use most, looked through for one that is not imported."""

_PLACEHOLDER = "__reference"


@dataclass
class Names:
    """The names that expressions of a workflow can use.

    Attributes:
        modules: Name to module, where it is one.
        others: Names of imported functions and classes, and of what lies in the bundle itself.
    """

    modules: dict[str, ModuleType] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)

    @property
    def known(self) -> set[str]:
        """All names, Python's own included."""
        return {*self.modules, *self.others, *dir(builtins), _PLACEHOLDER}


def is_local(root: Path, module: str) -> bool:
    """Say whether a module lies in the bundle, which MONAI puts on the search path when it runs.

    Args:
        root: The bundle's folder.
        module: Dotted name.
    """
    top = root / module.partition(".")[0]
    return top.is_dir() or top.with_suffix(".py").is_file()


def check_expressions(root: Path, workflow: Workflow) -> Iterator[Fault]:
    """Find expressions that do not parse, use undefined names, or import what is not there.

    Args:
        root: The bundle's folder.
        workflow: The workflow.

    Yields:
        Faults `bad-expression`, `undefined-name`, `unknown-attribute`, `unknown-import` and
        `ignored-import`.
    """
    expressions: list[tuple[str, str, ast.Module]] = []
    names = Names({name: importlib.import_module(module) for name, module in GLOBALS.items()})
    for key, value in workflow.nodes():
        if not is_expression(value):
            continue
        text = REFERENCE.sub(_PLACEHOLDER, value[1:].replace("::", "#"))
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError) as error:
            yield _syntax(workflow, key, value, getattr(error, "msg", None) or str(error))
            continue
        if tree.body and isinstance(tree.body[0], ast.Import | ast.ImportFrom):
            yield from _take_import(root, workflow, key, tree.body[0], names)
        elif len(tree.body) != 1 or not isinstance(tree.body[0], ast.Expr):
            yield _syntax(workflow, key, value, "not an expression")
        else:
            expressions.append((key, value, tree))
    if workflow.complete:
        for key, value, tree in expressions:
            yield from _undefined(workflow, key, value, tree, names)


def _syntax(workflow: Workflow, key: str, value: str, problem: str) -> Fault:
    return Fault(
        "bad-expression",
        workflow.file_of(key),
        key,
        shown(value),
        f"one Python expression after the $: {problem}",
        "correct it, or leave out the $ if it is text",
    )


def _take_import(
    root: Path, workflow: Workflow, key: str, node: ast.Import | ast.ImportFrom, names: Names
) -> Iterator[Fault]:
    """Import as MONAI does: one name a statement; `import a.b` binds nothing usable."""
    place = (workflow.file_of(key), key, shown(f"${ast.unparse(node)}"))
    if len(node.names) > 1:
        rest = ", ".join(alias.name for alias in node.names[1:])
        yield Fault(
            "ignored-import",
            *place,
            "one import a line: MONAI takes the first one alone",
            f"write another line for {rest}",
        )
    alias = node.names[0]
    bound = alias.asname or alias.name
    module = (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
    if is_local(root, module):
        names.others.add(bound)
        return
    try:
        found: Any = importlib.import_module(module)
        if isinstance(node, ast.ImportFrom):
            found = _member(found, alias.name)
    except AttributeError:
        meant = nearest(alias.name, dir(importlib.import_module(module)))
        do = f"write {meant}" if meant else f"correct the name {alias.name}"
        yield Fault("unknown-import", *place, f"a name of {module}", do)
    except Exception as error:  # noqa: BLE001 -- importing a package can raise anything
        meant = _nearest_module(module)
        text = f"an importable module: {type(error).__name__}: {error}"
        do = f"write {meant}" if meant else f"install what brings {module}, or correct the name"
        yield Fault("unknown-import", *place, shown(text), do)
    else:
        if isinstance(found, ModuleType):
            names.modules[bound] = found
    names.others.add(bound)  # a missing import is one fault, not one a use


def _member(module: ModuleType, name: str) -> Any:
    try:
        return getattr(module, name)
    except AttributeError:
        try:
            return importlib.import_module(f"{module.__name__}.{name}")
        except ModuleNotFoundError:
            pass
        raise


def _nearest_module(name: str) -> str | None:
    parent, _, last = name.rpartition(".")
    try:
        paths = importlib.import_module(parent).__path__ if parent else None
    except (ImportError, AttributeError):
        return None
    meant = nearest(last, [module.name for module in pkgutil.iter_modules(paths)])
    return ".".join(filter(None, (parent, meant))) if meant else None


def _undefined(
    workflow: Workflow, key: str, value: str, tree: ast.Module, names: Names
) -> Iterator[Fault]:
    bound = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    used = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    bound |= {node.id for node in used if not isinstance(node.ctx, ast.Load)}
    place = (workflow.file_of(key), key, shown(value))
    for name in sorted({node.id for node in used} - bound - names.known):
        hint = f"write @{name}" if name in workflow.content else _hint(name, names)
        rule = f"names that imports defines; {name} is none"
        yield Fault("undefined-name", *place, rule, hint, cause=f"${name}")
    chains = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    for node in chains:
        yield from _unknown_attribute(place, node, bound, names)


def _hint(name: str, names: Names) -> str:
    """Say where a name that is not defined can come from."""
    if importlib.util.find_spec(name) is not None:
        return f"add $import {name} to imports"
    for module in PROVIDERS:
        if hasattr(importlib.import_module(module), name):
            return f"add $from {module} import {name} to imports"
    meant = nearest(name, names.known)
    return f"write {meant}" if meant else f"import {name} in imports"


def _unknown_attribute(
    place: tuple[str, str, str], node: ast.Attribute, bound: set[str], names: Names
) -> Iterator[Fault]:
    owner = _module_of(node.value, bound, names)
    if owner is None or hasattr(owner, node.attr):
        return
    meant = nearest(node.attr, dir(owner))
    yield Fault(
        "unknown-attribute",
        *place,
        f"a name of the module {owner.__name__}; {node.attr} is none",
        f"write {owner.__name__}.{meant}" if meant else f"correct {node.attr}",
    )


def _module_of(node: ast.expr, bound: set[str], names: Names) -> ModuleType | None:
    if isinstance(node, ast.Name):
        return None if node.id in bound else names.modules.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _module_of(node.value, bound, names)
        found = getattr(owner, node.attr, None) if owner else None
        return found if isinstance(found, ModuleType) else None
    return None
