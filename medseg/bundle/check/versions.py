"""Whether what a bundle was made with is what is installed."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

from medseg._version import __version__
from medseg.bundle.check.configs import Workflow
from medseg.bundle.check.documents import is_expression
from medseg.bundle.check.expressions import is_local
from medseg.bundle.check.fault import Fault
from medseg.bundle.check.metadata import METADATA

LIBRARIES = {"monai_version": "monai", "pytorch_version": "torch", "numpy_version": "numpy"}

_IMPORT = re.compile(r"\$\s*(?:from|import)\s+([\w.]+)")


def check_versions(metadata: dict[str, Any]) -> Iterator[Fault]:
    """Compare stated versions with installed ones.

    Args:
        metadata: Content of metadata.json.

    Yields:
        Warnings `version-mismatch` and `package-not-installed`.
    """
    for key, name in LIBRARIES.items():
        stated = metadata.get(key)
        if isinstance(stated, str) and _numbers(stated):
            found = version(name)
            if _numbers(found) != _numbers(stated):
                yield _mismatch(key, name, stated, found, is_older=_is_older(found, stated))
    packages = metadata.get("required_packages_version")
    for name, stated in packages.items() if isinstance(packages, dict) else ():
        key = f"required_packages_version#{name}"
        try:
            found = _installed(str(name))
        except PackageNotFoundError:
            yield Fault(
                "package-not-installed",
                METADATA,
                key,
                f"{name} {stated}",
                f"{name} installed",
                f"install {name} {stated} or newer",
                severity="warning",
            )
            continue
        if isinstance(stated, str) and _is_older(found, stated):
            yield _mismatch(key, name, stated, found, is_older=True)


def _installed(name: str) -> str:
    return __version__ if name == "medseg" else version(name)


def _mismatch(key: str, name: str, stated: str, found: str, *, is_older: bool) -> Fault:
    if is_older:
        do = f"install {name} {stated} or newer"
    else:
        do = f"nothing while the bundle's scores hold; else install {name} {stated}"
    return Fault(
        "version-mismatch",
        METADATA,
        key,
        f"{name} {stated}",
        f"the installed version, {name} {found}",
        do,
        severity="warning",
    )


def _numbers(text: str) -> tuple[int, ...]:
    """Return the release of a version: `2.15.0+cpu` is (2, 15, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _is_older(found: str, stated: str) -> bool:
    return _numbers(found) < _numbers(stated)


def check_packages(
    root: Path, workflows: Sequence[Workflow], metadata: dict[str, Any]
) -> Iterator[Fault]:
    """Find packages that the configs use and the metadata does not name.

    Args:
        root: The bundle's folder.
        workflows: The workflows.
        metadata: Content of metadata.json.

    Yields:
        Warnings `package-not-listed`.
    """
    listed = metadata.get("required_packages_version")
    if not isinstance(listed, dict):
        return
    names = {_normal(str(name)) for name in listed}
    names |= {"monai", "torch", "numpy"}  # stated by fields of their own
    of_module = {**_packages(), "medseg": ["medseg"]}  # also where it runs from source
    found: set[str] = set()
    for workflow in workflows:
        for key, value in workflow.nodes():
            module = _package(value)
            if not module or module in found or module in sys.stdlib_module_names:
                continue
            found.add(module)
            packages = {_normal(name) for name in of_module.get(module, ())}
            if packages and not packages & names and not is_local(root, module):
                package = min(packages)
                yield Fault(
                    "package-not-listed",
                    workflow.file_of(key),
                    key,
                    module,
                    "packages of required_packages_version in metadata.json",
                    f'add "{package}": "{_installed(package)}" to it',
                    severity="warning",
                )


@cache
def _packages() -> Mapping[str, list[str]]:
    """Return the packages that bring each module; reading it takes half a second."""
    return packages_distributions()


def _package(value: Any) -> str | None:
    if isinstance(value, dict) and isinstance(value.get("_target_"), str):
        target = str(value["_target_"])
        return target.partition(".")[0] if "." in target and target[0] not in "$@" else None
    match = _IMPORT.match(value) if is_expression(value) else None
    return match[1].partition(".")[0] if match else None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
