"""Arguments that MONAI has removed since a bundle was written."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from medseg.bundle.check.documents import nodes_of

REMOVED: dict[str, dict[str, str]] = {
    "SwinUNETR": {"img_size": ""},
    "UNETR": {"pos_embed": "proj_type"},
    "ViT": {"pos_embed": "proj_type"},
    "ViTAutoEnc": {"pos_embed": "proj_type"},
    "PatchEmbeddingBlock": {"pos_embed": "proj_type"},
    "Orientationd": {"meta_keys": "", "meta_key_postfix": ""},
    "Spacingd": {"meta_keys": "", "meta_key_postfix": ""},
    "SegResNet": {"dimensions": "spatial_dims"},
    "UNet": {"dimensions": "spatial_dims"},
    "BasicUNet": {"dimensions": "spatial_dims"},
    "BasicUnet": {"dimensions": "spatial_dims"},
    "AttentionUnet": {"dimensions": "spatial_dims"},
}
"""Class of MONAI to the arguments that 1.6 lacks, each with its name of today; empty for none.

What is dropped had no effect on the result any more; the rest was renamed.
"""

RENAMED = {"AddChanneld": "EnsureChannelFirstd", "AsChannelFirstd": "EnsureChannelFirstd"}
"""Class that MONAI 1.6 lacks to the one that does its work."""

FETCHING = ("pretrained", "pretrained_backbone", "pretrained_url", "pretrained_state_dict")
"""Arguments that fetch weights from elsewhere; the bundle's own are loaded in any case."""

SWITCHES = ("pretrained", "pretrained_backbone")
"""Those of them that are true or false; others are left out."""

FETCHING_BY_DEFAULT = (
    "EfficientNetBN", "EfficientNetBNFeatures", "EfficientNetEncoder", "FCN", "MCFCN", "MILModel",
    "ResNetEncoder", "ResNetFeatures", "TextEncoder",
)  # fmt: skip
"""Classes that fetch weights unless `pretrained` is false."""

_TARGET = "_target_"


@dataclass(frozen=True)
class Removed:
    """An argument that is not passed on as the bundle states it.

    Attributes:
        key: Of the argument.
        target: Class that it is an argument of.
        name: The argument.
        renamed: Its name of today; empty where it is dropped.
        fetches: It would fetch weights from the network.
    """

    key: str
    target: str
    name: str
    renamed: str = ""
    fetches: bool = False

    @property
    def message(self) -> str:
        """One sentence for a person."""
        place = f"of {self.target} ({self.key})"
        if self.fetches:
            return f"{self.name} {place} was left out: the weights are the bundle's own"
        if self.name == _TARGET:
            return f"{self.target} ({self.key}) was replaced by {self.renamed} in MONAI 1.6"
        if self.renamed:
            return f"{self.name} {place} is called {self.renamed} in MONAI 1.6"
        return f"{self.name} {place} was dropped: MONAI 1.6 removed it"


def removed_arguments(config: Any, prefix: str = "") -> Iterator[Removed]:
    """Find arguments that MONAI 1.6 does not take any more.

    Args:
        config: Nested configs.
        prefix: Key of the configs.

    Yields:
        Each argument of `REMOVED`, and each that would fetch weights.
    """
    own = [(prefix, config)] if prefix else []
    for key, value in [*own, *nodes_of(config, prefix)]:
        if isinstance(value, dict):
            yield from removed_of(value, key)


def removed_of(component: dict[str, Any], key: str) -> Iterator[Removed]:
    """Find arguments of one component that MONAI 1.6 does not take any more.

    Args:
        component: `_target_` and arguments; anything else has none.
        key: Of the component.

    Yields:
        Each argument of `REMOVED`, and each that would fetch weights.
    """
    if not isinstance(component.get(_TARGET), str):
        return
    target = component[_TARGET].rpartition(".")[2]
    if target in RENAMED:
        yield Removed(f"{key}#{_TARGET}", target, _TARGET, RENAMED[target])
    for name, renamed in REMOVED.get(target, {}).items():
        if name in component:
            yield Removed(f"{key}#{name}", target, name, renamed)
    for name in FETCHING:
        by_default = name == "pretrained" and target in FETCHING_BY_DEFAULT
        if component.get(name, by_default) not in (None, False):
            yield Removed(f"{key}#{name}", target, name, fetches=True)


def without_removed(config: Any, prefix: str = "") -> list[Removed]:
    """Drop or rename in place what MONAI 1.6 does not take any more.

    Args:
        config: Nested configs; changed.
        prefix: Key of the configs.

    Returns:
        What was done.
    """
    found = list(removed_arguments(config, prefix))
    nodes = dict(nodes_of(config, prefix)) | {prefix: config}
    for one in found:
        component = nodes[one.key.rpartition("#")[0]]
        value = component.pop(one.name, None)
        if one.name == _TARGET:
            component |= {_TARGET: one.renamed}
        elif one.name in SWITCHES:
            component[one.name] = False
        elif one.renamed:
            component.setdefault(one.renamed, value)
    return found
