"""`--set` of a training: what it may change, and what it changes for inference as well."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.bundle.overrides import parse_overrides, write_scalar
from medseg.errors import UsageError

AGREED = (
    "network_def",
    "num_classes",
    "label_values",
    "ignored_values",
    "region_values",
    "spacing_mm",
    "patch_size",
    "preprocessing_transforms",
    "preprocessing",
)
"""What training and inference must agree on: masks would be wrong, and look right, otherwise."""
NAME = "network_name"
CHOICES = (NAME, "encoder")
"""What a bundle of several networks leaves open; the choice is written into its common.yaml."""


def overrides_of(settings: Sequence[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """Read the settings of a training.

    In a bundle of several networks, `network=NAME` chooses one: it stands for `network_name`.

    Args:
        settings: `KEY=VALUE` each.
        config: The merged configs.

    Returns:
        Key, its parts joined by `#`, to value.

    Raises:
        UsageError: If a setting changes what inference has to agree on
            (`disagrees-with-inference`), names no network there is (`no-such-network`), or any
            code of `parse_overrides`.
    """
    if NAME in config:
        named = f"{NAME}="
        settings = [
            named + text.partition("=")[2] if text.partition("=")[0].strip() == "network" else text
            for text in settings
        ]
    overrides = parse_overrides(settings, config)
    changed = [key for key in overrides if key.partition("#")[0] in AGREED]
    if changed:
        msg = (
            f"--set must not change what inference has to agree on, got {', '.join(changed)}."
            " Change configs/common.yaml of the bundle, or plan anew."
        )
        raise UsageError(msg, code="disagrees-with-inference")
    if NAME in overrides:
        from medseg.networks import network_names  # noqa: PLC0415  # torch takes seconds

        if overrides[NAME] not in network_names():
            msg = f"network must be among {', '.join(network_names())}, got {overrides[NAME]!r}."
            raise UsageError(msg, code="no-such-network")
    return overrides


def write_choices(root: Path, config: Mapping[str, Any], settings: Sequence[str]) -> None:
    """Write the network that was chosen into a bundle, so that inference builds it too.

    Args:
        root: The bundle that is trained.
        config: Its configs, the settings applied.
        settings: Of the training.
    """
    given = {text.partition("=")[0].strip() for text in settings}
    if NAME not in config or not given & {"network", *CHOICES}:
        return
    for key in CHOICES:
        if key in config:
            write_scalar(root / "configs" / "common.yaml", key, config[key])
