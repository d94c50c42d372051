"""The reference runner as one file: the modules of `medseg.bundle.runner` joined."""

import ast
from pathlib import Path

from medseg._version import __version__

MODULES = ("grid", "components", "steps", "maps", "run")
"""Those they import from come first."""

_FOLDER = Path(__file__).with_name("runner")


def runner_source() -> str:
    """Return the text of `run.py`.

    Returns:
        Python that imports the standard library, numpy, nibabel and onnxruntime.
    """
    plain: set[str] = set()
    named: dict[str, set[str]] = {}
    bodies, first = [], ""
    for name in MODULES:
        text = (_FOLDER / f"{name}.py").read_text(encoding="utf-8")
        lines = text.splitlines()
        opening, *nodes = ast.parse(text).body
        first = "\n".join(lines[: opening.end_lineno])
        last = opening.end_lineno or 0
        for node in nodes:
            if isinstance(node, ast.Import):
                plain |= {ast.unparse(node)}
            elif isinstance(node, ast.ImportFrom):
                module = node.module or ""
                named.setdefault(module, set()).update(alias.name for alias in node.names)
            else:
                break
            last = node.end_lineno or last
        bodies.append("\n".join(lines[last:]).strip("\n"))
    imports = sorted(plain) + [
        f"from {module} import {', '.join(sorted(names))}"
        for module, names in sorted(named.items())
        if not module.startswith("medseg")
    ]
    notice = f"# Written by medseg {__version__}, under the Apache License 2.0."
    return "\n\n\n".join([f"{first}\n\n{notice}\n\n" + "\n".join(imports), *bodies]) + "\n"
