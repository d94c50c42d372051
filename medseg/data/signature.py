"""What a list of transforms does, as text: two lists with equal text give equal results."""

import enum
import functools
import hashlib
import inspect
import json
import re
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose
from monai.transforms.traits import RandomizableTrait

import medseg
from medseg.errors import UsageError

_READING = ("io", "transforms", "geometry.py", "volume.py")
_PLAIN = (type(None), bool, int, str)
_BY_TEXT = (torch.dtype, torch.device, np.dtype, Path, slice, range, complex, np.ufunc)


def describe_transforms(transforms: Sequence[Any]) -> dict[str, Any]:
    """Describe transforms by their classes, their parameters and the code that they run.

    The code counts by the version of its package and by its source file, medseg's readers
    included, so that whatever a transform computed before a change is not taken for what it
    computes after.

    Args:
        transforms: Instantiated transforms that draw nothing at random.

    Returns:
        A JSON document; equal for equal transforms, in every process.

    Raises:
        UsageError: If one is random or lazy, or holds what has no description (code
            `transform-not-describable`).
    """
    walk = _Walk()
    steps = [walk.describe(step, f"transforms[{n}]") for n, step in enumerate(transforms)]
    return {"steps": steps, "code": dict(sorted(walk.code.items())), "reading": _reading_code()}


def transforms_signature(transforms: Sequence[Any]) -> str:
    """Return the SHA-256 of `describe_transforms`.

    Args:
        transforms: Instantiated transforms that draw nothing at random.

    Returns:
        Hexadecimal digest.

    Raises:
        UsageError: As `describe_transforms`.
    """
    return text_digest(describe_transforms(transforms))


def text_digest(document: Any) -> str:
    """Return the SHA-256 of a JSON document.

    Args:
        document: Dicts with text keys, lists, strings, numbers, None.

    Returns:
        Hexadecimal digest.

    Examples:
        >>> text_digest({"a": 1, "b": 2}) == text_digest({"b": 2, "a": 1})
        True
    """
    text = json.dumps(document, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class _Walk:
    """Walks the objects below a transform, and notes whose code they run."""

    def __init__(self) -> None:
        self.code: dict[str, str] = {}
        self._above: list[int] = []

    def describe(self, value: Any, where: str) -> Any:
        if isinstance(value, enum.Enum):
            return {"enum": self._named(type(value), where), "name": value.name}
        if isinstance(value, _PLAIN):
            return value
        if id(value) in self._above:  # an object that leads back to itself
            return {"above": len(self._above) - self._above.index(id(value))}
        self._above.append(id(value))
        try:
            return self._compound(value, where)
        finally:
            self._above.pop()

    def _compound(self, value: Any, where: str) -> Any:
        for kinds, describe in _KINDS:
            if isinstance(value, kinds):
                return describe(self, value, where)
        return self._object(value, where)

    def _text(self, value: Any, where: str) -> Any:  # noqa: ARG002  # one signature for all kinds
        return {type(value).__name__: str(value)}

    def _float(self, value: float, where: str) -> Any:  # noqa: ARG002
        return {"float": repr(float(value))}

    def _bytes(self, value: bytes, where: str) -> Any:  # noqa: ARG002
        return {"bytes": hashlib.sha256(value).hexdigest()}

    def _array(self, value: Any, where: str) -> Any:  # noqa: ARG002
        array = np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        return {"array": digest, "type": str(array.dtype), "shape": list(array.shape)}

    def _pattern(self, value: re.Pattern[Any], where: str) -> Any:  # noqa: ARG002
        return {"pattern": str(value.pattern), "flags": value.flags}

    def _mapping(self, value: Mapping[Any, Any], where: str) -> Any:
        pairs = [
            [self.describe(key, where), self.describe(item, f"{where}[{key!r}]")]
            for key, item in value.items()
        ]
        return {"mapping": sorted(pairs, key=lambda pair: json.dumps(pair[0], sort_keys=True))}

    def _list(self, value: Sequence[Any], where: str) -> Any:
        return [self.describe(item, f"{where}[{n}]") for n, item in enumerate(value)]

    def _set(self, value: Any, where: str) -> Any:
        items = [self.describe(item, where) for item in value]
        return {"set": sorted(items, key=lambda item: json.dumps(item, sort_keys=True))}

    def _partial(self, value: functools.partial[Any], where: str) -> Any:
        parts = {"func": value.func, "args": value.args, "keywords": value.keywords}
        return {"partial": [self.describe(p, f"{where}.{name}") for name, p in parts.items()]}

    def _method(self, value: types.MethodType, where: str) -> Any:
        owner = self.describe(value.__self__, f"{where}.__self__")
        return {"method": value.__func__.__name__, "of": owner}

    def _function(self, value: Any, where: str) -> Any:
        owner = getattr(value, "__self__", None)
        if isinstance(value, types.BuiltinFunctionType) and not (
            owner is None or isinstance(owner, types.ModuleType)
        ):
            return {"method": value.__name__, "of": self.describe(owner, where)}
        return {"function": self._named(value, where)}

    def _class(self, value: type, where: str) -> Any:
        return {"class": self._named(value, where)}

    def _module(self, value: types.ModuleType, where: str) -> Any:  # noqa: ARG002
        self._note(value.__name__)
        return {"module": value.__name__}

    def _random_state(self, value: Any, where: str) -> Any:  # noqa: ARG002
        return {"random": type(value).__name__}  # nothing that is described here draws from it

    def _object(self, value: Any, where: str) -> Any:
        kind = type(value)
        _check_deterministic(value, where)
        # What a pickled copy would hold, without what use leaves behind, such as thread-locals.
        state = value.__getstate__()
        if isinstance(state, tuple):  # with slots
            state = {**(state[0] or {}), **state[1]}
        if state is None and not hasattr(value, "__dict__"):
            raise _refusal(where, f"an object of {kind.__module__}.{kind.__qualname__}")
        named = self._named(kind, where)
        for base in kind.__mro__[1:]:
            self._note(base.__module__)
        if not isinstance(state, dict):
            return {"object": named, "state": self.describe(state, where)}
        parts = {name: self.describe(item, f"{where}.{name}") for name, item in state.items()}
        return {"object": named, "state": parts}

    def _named(self, value: Any, where: str) -> str:
        name = str(getattr(value, "__qualname__", None) or getattr(value, "__name__", ""))
        module = getattr(value, "__module__", None) or "builtins"
        if "<lambda>" in name:
            raise _refusal(where, "a lambda")
        if "<locals>" in name or not name:
            raise _refusal(where, f"{name or value!r}, which no module names")
        self._note(module)
        return f"{module}.{name}"

    def _note(self, module: str) -> None:
        if module not in self.code and module != "builtins":
            self.code[module] = _code_of(module)


_KINDS: tuple[tuple[Any, Any], ...] = (
    (float, _Walk._float),
    ((bytes, bytearray), _Walk._bytes),
    ((np.ndarray, np.generic, torch.Tensor), _Walk._array),
    (_BY_TEXT, _Walk._text),
    (re.Pattern, _Walk._pattern),
    (Mapping, _Walk._mapping),
    ((list, tuple), _Walk._list),
    ((set, frozenset), _Walk._set),
    (functools.partial, _Walk._partial),
    (types.MethodType, _Walk._method),
    ((types.FunctionType, types.BuiltinFunctionType), _Walk._function),
    (type, _Walk._class),
    (types.ModuleType, _Walk._module),
    ((np.random.RandomState, np.random.Generator), _Walk._random_state),
)


def _check_deterministic(value: Any, where: str) -> None:
    name = type(value).__name__
    if isinstance(value, RandomizableTrait) and type(value) is not Compose:
        msg = (
            f"transforms must draw nothing at random, got {name} in {where}. "
            "Move it to the augmentation, which runs on each sample."
        )
        raise UsageError(msg, code="transform-not-describable")
    if getattr(value, "lazy", False) is True:
        msg = f"transforms must not be lazy, got {name} in {where}. Set lazy to false."
        raise UsageError(msg, code="transform-not-describable")


def _refusal(where: str, what: str) -> UsageError:
    msg = (
        f"transforms must be describable, so that what they computed is never taken for something "
        f"else, got {what} in {where}. Use a function or class of a module, with plain parameters."
    )
    return UsageError(msg, code="transform-not-describable")


@functools.cache
def _code_of(name: str) -> str:
    """Return the version of a module's package and a digest of its source."""
    package = sys.modules.get(name.split(".", maxsplit=1)[0])
    version = str(getattr(package, "__version__", ""))
    module = sys.modules.get(name)
    try:
        source = inspect.getsourcefile(module) if module is not None else None
    except TypeError:  # built in, or made at run time
        source = None
    return f"{version} {_file_digest(Path(source))}" if source else version


@functools.cache
def _reading_code() -> str:
    """Return a digest of the sources between a file and its volume."""
    root = Path(medseg.__file__).parent
    found = [path for name in _READING for path in (root / name, *(root / name).rglob("*.py"))]
    files = {path for path in found if path.suffix == ".py"}
    return text_digest([[p.relative_to(root).as_posix(), _file_digest(p)] for p in sorted(files)])


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
