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

OF_OBJECTS = frozenset(("medseg.networks.MaskRcnn", "medseg.inference.objects.ObjectInferer"))
"""Classes of medseg that need torchvision alone."""
OURS = re.compile(
    r"medseg\.(networks\.(DynUNet|NnunetUNet|nnunet_ensemble)|(transforms|inference)\.\w+)"
)
"""Classes of medseg that need none; networks by name come from the libraries, and classical methods
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
    dispensable = set(LEFT_OUT).intersection(*map(left_out_for, bundles))
    leave_out = "monai" not in sys.modules and bool(dispensable)
    absent = _Absent(frozenset(dispensable))
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


def left_out_for(bundle: Bundle) -> frozenset[str]:
    """Return the packages that network, preprocessing and inferer of a bundle do without.

    Args:
        bundle: The bundle.

    Returns:
        Some of `LEFT_OUT`; nothing where it uses what is not known.
    """
    if bundle.is_foreign:  # it is built by MONAI's names for components, which import all of it
        return frozenset()
    try:
        config = merge_configs(bundle.config_files)
    except BundleError:  # said when the bundle is built
        return frozenset()
    imports = (value for _, value in nodes_of(config) if is_expression(value) and "import" in value)
    used = list(_used(config))
    if not all(_HARMLESS.fullmatch(value) for value in imports) or not all(map(_is_known, used)):
        return frozenset()
    of_objects = any(isinstance(value, str) and value in OF_OBJECTS for _, value in used)
    return frozenset(LEFT_OUT) - ({"torchvision"} if of_objects else set())


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
        return (
            value in OF_OBJECTS
            or bool(OURS.fullmatch(value))
            or (found is not None and found[3] in INDEPENDENT)
        )
    return not (is_expression(value) and "monai" in value)


class _Absent:
    """A finder of modules that finds the packages left out to be absent."""

    def __init__(self, packages: frozenset[str]) -> None:
        self.packages = packages

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        if any(name == package or name.startswith(f"{package}.") for package in self.packages):
            msg = f"No module named {name!r}"
            raise ModuleNotFoundError(msg, name=name)
        return None
