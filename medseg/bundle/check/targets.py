"""`_target_`s: they are located and their arguments compared with their signature, never called."""

import ast
import inspect
import pydoc
import sys
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from medseg.bundle.check.configs import Workflow
from medseg.bundle.check.documents import is_expression, references_of
from medseg.bundle.check.expressions import is_local
from medseg.bundle.check.fault import Fault, nearest, shown
from medseg.bundle.removed import Removed, removed_of

NOT_ARGUMENTS = {"_target_", "_disabled_", "_requires_", "_desc_", "_mode_", "_debug_"}


class Locator:
    """Finds what a `_target_` names, as MONAI does.

    Args:
        root: The bundle's folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._monai = _components()
        self._found: dict[str, Any] = {}

    def find(self, target: str) -> Any:
        """Return the class or function that a name stands for.

        Args:
            target: Name of a MONAI class, or a dotted name.

        Returns:
            What was found; None for nothing.

        Raises:
            Exception: Whatever importing its module raises.
        """
        if target not in self._found:
            module = self._monai.get_component_module_name(target)
            module = module[0] if isinstance(module, list) else module
            self._found[target] = pydoc.locate(f"{module}.{target}" if module else target)
        return self._found[target]

    def knows(self, name: str) -> bool:
        """Say whether MONAI has a class or function of a name; nothing else is imported.

        Args:
            name: Without dots.
        """
        return self._monai.get_component_module_name(name) is not None

    def is_local(self, target: str) -> bool:
        """Say whether a name lies in the bundle itself; such code is not imported.

        Args:
            target: Dotted name.
        """
        return "." in target and is_local(self.root, target)

    def local_problem(self, target: str) -> str:
        """Look a name up in the bundle's own code without running it.

        Args:
            target: Dotted name.

        Returns:
            What is wrong; empty if nothing is.
        """
        module, _, name = target.rpartition(".")
        path = self.root.joinpath(*module.split("."))
        files = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
        if not files:
            return f"the bundle has no {module.replace('.', '/')}.py"
        try:
            body = ast.parse(files[0].read_text(encoding="utf-8")).body
        except (SyntaxError, ValueError, OSError) as error:
            return f"{files[0].name} does not parse: {error}"
        return "" if name in _defined(body) else f"{files[0].name} does not define {name}"

    def nearest(self, target: str) -> str | None:
        """Return the existing name that was probably meant.

        Args:
            target: Name that was not found.
        """
        module, _, name = target.rpartition(".")
        if not module:
            return nearest(name, self._monai_names())
        try:
            meant = nearest(name, dir(pydoc.locate(module)))
        except pydoc.ErrorDuringImport:
            return None
        if meant:
            return f"{module}.{meant}"
        return name if name in self._monai_names() else None

    def _monai_names(self) -> list[str]:
        self._monai.get_component_module_name("")  # fills the table
        return list(self._monai._components_table or ())


@cache
def _components() -> Any:
    """Return MONAI's table of its own classes; it takes a fifth of a second to fill."""
    from monai.bundle import ComponentLocator  # noqa: PLC0415  # slow to import

    return ComponentLocator()


def _defined(body: list[ast.stmt]) -> set[str]:
    names: set[str] = set()
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def check_targets(locator: Locator, workflow: Workflow) -> Iterator[Fault]:
    """Find components that do not exist, or do not take the arguments they are given.

    Args:
        locator: Finds components.
        workflow: The workflow.

    Yields:
        Faults `unknown-target`, `unknown-argument`, `missing-argument`, and warnings
        `removed-argument`.
    """
    import monai.bundle  # noqa: F401, PLC0415  # fills the table of MONAI's components

    for key, value in workflow.nodes():
        if not isinstance(value, dict) or "_target_" not in value:
            continue
        target = value["_target_"]
        if not isinstance(target, str) or is_expression(target) or references_of(target):
            continue
        if str(value.get("_disabled_", False)).lower() == "true":
            continue
        yield from _check_target(locator, workflow, key, value)


def _check_target(
    locator: Locator, workflow: Workflow, key: str, value: dict[str, Any]
) -> Iterator[Fault]:
    target = value["_target_"]
    removed = [one for one in removed_of(value, key) if not one.fetches]
    yield from (_removed(workflow, one, value[one.name]) for one in removed)
    if any(one.name == "_target_" for one in removed):
        return
    value = {name: one for name, one in value.items() if f"{key}#{name}" not in _keys(removed)}
    value |= {one.renamed: "" for one in removed if one.renamed}
    rule, found = "", None
    if locator.is_local(target):
        rule = locator.local_problem(target)
    else:
        try:
            found = locator.find(target)
            rule = "" if callable(found) else "an importable class or function"
        except Exception as error:  # noqa: BLE001 -- importing a package can raise anything
            rule = f"a module that can be imported: {error}"
    if rule:
        meant = locator.nearest(target)
        package = target.partition(".")[0]
        installed = package in sys.modules or "." not in target
        do = f"write {meant}" if meant else "correct the name"
        do = do if meant or installed else f"install what brings {package}, or correct the name"
        file = workflow.file_of(f"{key}#_target_")
        yield Fault("unknown-target", file, f"{key}#_target_", shown(target), shown(rule), do)
    elif found is not None:
        yield from _check_arguments(workflow, key, value, found)


def _keys(removed: list[Removed]) -> set[str]:
    return {one.key for one in removed}


def _removed(workflow: Workflow, one: Removed, value: Any) -> Fault:
    return Fault(
        "removed-argument",
        workflow.file_of(one.key),
        one.key,
        shown(value),
        f"what MONAI 1.6 takes: {one.message}",
        f"write {one.renamed}" if one.renamed else f"remove {one.name}; medseg does without it",
        severity="warning",
    )


def _check_arguments(
    workflow: Workflow, key: str, value: dict[str, Any], found: Any
) -> Iterator[Fault]:
    parameters = _parameters(found)
    if parameters is None:
        return
    target = value["_target_"]
    given = [name for name in value if name not in NOT_ARGUMENTS]
    named = [name for name, one in parameters.items() if one.kind in _BY_NAME]
    if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        for name in given:
            if name in named:
                continue
            meant = nearest(name, named)
            place = f"{key}#{name}"
            yield Fault(
                "unknown-argument",
                workflow.file_of(place),
                place,
                shown(value[name]),
                shown(f"an argument of {target}: {', '.join(named)}"),
                f"write {meant}" if meant else f"remove {name}",
            )
    if workflow.complete and value.get("_mode_", "default") == "default":
        for name in named:
            if parameters[name].default is inspect.Parameter.empty and name not in value:
                yield Fault(
                    "missing-argument",
                    workflow.file_of(key),
                    key,
                    shown(value),
                    f"{target} needs the argument {name}",
                    f"add {name}",
                )


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _parameters(found: Any) -> dict[str, inspect.Parameter] | None:
    if isinstance(found, types.ModuleType):
        return None
    try:
        return dict(inspect.signature(found).parameters)
    except (TypeError, ValueError):  # written in C, without a signature
        return None
