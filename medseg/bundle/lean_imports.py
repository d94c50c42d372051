"""Import MONAI in half the time, for bundles that need no more of it."""

import gc
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from typing import Any

from medseg.bundle.check.documents import is_expression, look_up, nodes_of, references_of
from medseg.bundle.load import Bundle
from medseg.bundle.overrides import merge_configs
from medseg.errors import BundleError

LEFT_OUT = ("ignite", "torchvision", "matplotlib", "itk", "scipy.signal")
"""Packages that MONAI imports where they are there, and can do without.

They are three quarters of the seconds that `import monai` takes and 240 MB of memory.
"""

INDEPENDENT = frozenset(
    (
        "Compose", "LoadImaged", "EnsureChannelFirstd", "EnsureTyped", "Orientationd", "Spacingd",
        "ResizeWithPadOrCropd", "CropForegroundd", "SpatialPadd", "DivisiblePadd",
        "NormalizeIntensityd", "ScaleIntensityd", "ScaleIntensityRanged",
        "ScaleIntensityRangePercentilesd", "ThresholdIntensityd", "ConcatItemsd",
        "SlidingWindowInferer", "SimpleInferer", "AttentionUnet", "BasicUNet", "BasicUNetPlusPlus",
        "DynUNet", "SegResNet", "SegResNetDS", "SwinUNETR", "UNet", "UNETR", "VNet",
    )
)  # fmt: skip
"""Classes of MONAI that do not use them."""

OURS = re.compile(r"medseg\.(networks\.DynUNet|(transforms|inference)\.\w+)")
"""Classes of medseg that do not; networks by name come from the libraries, and classical methods
from scikit-image.
"""

PARTS = ("network_def", "preprocessing", "inferer")
_FROM_MONAI = re.compile(r"(monai\.(transforms|inferers|networks\.nets)\.)?(\w+)")
_HARMLESS = re.compile(
    r"\$import (glob|json|math|os|numpy as np|numpy|torch)|\$from medseg\.data import images_in"
)


@contextmanager
def lean_imports(bundles: Sequence[Bundle]) -> Iterator[None]:
    """Within this context, import nothing that inference with these bundles does not need.

    MONAI then stays without those packages as long as the process lives, as if they were not
    installed: for a process that segments and ends, not for a library. Also, nothing looks for
    garbage among the many objects of new modules.

    Args:
        bundles: What will be built; if one uses more than what is known to be independent of
            the packages, nothing is left out.
    """
    leave_out = "monai" not in sys.modules and all(is_independent(bundle) for bundle in bundles)
    absent = _Absent()
    collecting = gc.isenabled()
    gc.disable()
    if leave_out:
        import torch  # noqa: F401, PLC0415 -- imports what it wants

        sys.meta_path.insert(0, absent)
    try:
        yield
    finally:
        if leave_out:
            sys.meta_path.remove(absent)
        if collecting:
            gc.enable()


def is_independent(bundle: Bundle) -> bool:
    """Say whether network, preprocessing and inferer of a bundle are known to need none of them.

    Args:
        bundle: The bundle.
    """
    try:
        config = merge_configs(bundle.config_files)
    except BundleError:  # said when the bundle is built
        return False
    imports = (value for _, value in nodes_of(config) if is_expression(value) and "import" in value)
    return all(_HARMLESS.fullmatch(value) for value in imports) and all(
        _is_known(value) for value in _used(config)
    )


def _used(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield keys and values that the parts are made of, references followed."""
    keys = list(PARTS)
    seen = set()
    while keys:
        key = keys.pop()
        if key in seen:
            continue
        seen.add(key)
        try:
            value = look_up(config, key)
        except KeyError:
            continue
        for below, inner in [(key, value), *nodes_of(value, key)]:
            yield (below, inner)
            keys += references_of(inner)


def _is_known(node: tuple[str, Any]) -> bool:
    key, value = node
    if key.rpartition("#")[2] == "_target_":
        if not isinstance(value, str):
            return False
        found = _FROM_MONAI.fullmatch(value)
        return bool(OURS.fullmatch(value)) or (found is not None and found[3] in INDEPENDENT)
    return not (is_expression(value) and "monai" in value)


class _Absent:
    """A finder of modules that finds the packages left out to be absent."""

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        if any(name == package or name.startswith(f"{package}.") for package in LEFT_OUT):
            msg = f"No module named {name!r}"
            raise ModuleNotFoundError(msg, name=name)
        return None
