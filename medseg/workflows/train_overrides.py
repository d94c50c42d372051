"""`--set` of a training: what it may change, and what it changes for inference as well."""

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from medseg.bundle.overrides import merge_configs, parse_overrides, write_scalar
from medseg.errors import BundleError, UsageError

AGREED = (
    "network_def",
    "num_classes",
    "label_values",
    "ignored_values",
    "region_values",
    "spacing_mm",
    "spacing_px",
    "patch_size",
    "preprocessing_transforms",
    "preprocessing",
)
"""What training and inference must agree on: masks would be wrong, and look right, otherwise."""
NAME = "network_name"
ENCODER = "encoder"
CHOICES = (NAME, ENCODER)
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
            (`disagrees-with-inference`), names no network or encoder there is
            (`no-such-network`, `no-such-encoder`), or one where the bundle has its own
            (`no-choice`), or any code of `parse_overrides`.
    """
    names = [text for text in settings if re.fullmatch(r"\s*network\s*=\s*\w+\s*", text)]
    if names and NAME not in config:
        msg = (
            "network must be left out for a bundle that states its own network_def, got"
            f" {names[0].strip()!r}."
            " Plan a bundle with medseg plan --network NAME."
        )
        raise UsageError(msg, code="no-choice")
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
    if NAME in config and {NAME, ENCODER} & overrides.keys():
        if NAME in overrides and overrides[NAME] != config[NAME]:
            overrides.setdefault(ENCODER, None)  # that of another network
        _check_choice({**config, **overrides})
    return overrides


def _check_choice(config: Mapping[str, Any]) -> None:
    from medseg.networks import encoder_names, network_names  # noqa: PLC0415  # torch takes seconds

    name, encoder = config[NAME], config.get(ENCODER)
    if name not in network_names():
        msg = f"network must be among {', '.join(network_names())}, got {name!r}."
        raise UsageError(msg, code="no-such-network")
    encoders = encoder_names(name)
    if encoder is not None and encoder not in encoders:
        rule = f"among {', '.join(encoders)}" if encoders else "left out"
        msg = f"encoder of {name} must be {rule}, got {encoder!r}."
        raise UsageError(msg, code="no-such-encoder")


def require_the_same_network(config: Mapping[str, Any], root: Path) -> None:
    """Refuse to go on from a checkpoint with another network than it is of.

    Args:
        config: Configs of the training, the settings applied.
        root: The bundle that is trained; its common.yaml names the network of the checkpoint.

    Raises:
        UsageError: If they differ (`disagrees-with-checkpoint`).
    """
    file = root / "configs" / "common.yaml"
    stated = merge_configs([file]) if NAME in config and file.is_file() else {}
    for key in CHOICES:
        if key in stated and stated[key] != config.get(key):
            msg = (
                f"{key} must be that of the checkpoint to go on from it, {stated[key]!r}, got"
                f" {config.get(key)!r}. Leave it out, or train anew with --overwrite."
            )
            raise UsageError(msg, code="disagrees-with-checkpoint")


def require_buildable(config: Mapping[str, Any], root: Path) -> None:
    """Build the network of a training once, before anything of an earlier one is removed.

    Args:
        config: Configs of the training, the settings applied.
        root: The bundle whose configs they are.

    Raises:
        BundleError: If it cannot be built (`bad-config`).
    """
    if "network_def" not in config:
        return  # a bundle that builds it in another way
    from medseg.bundle.build import build_part  # noqa: PLC0415  # torch takes seconds

    build_part(config, "network_def", root)


def require_safe_training(config: Mapping[str, Any], root: Path) -> None:
    """Refuse configs that may do more than train.

    Args:
        config: Configs of the training, the settings applied.
        root: The bundle whose configs they are.

    Raises:
        BundleError: If they may run anything (`needs-trust`), or a macro leads nowhere
            (`bad-config`).
    """
    from monai.bundle import ConfigParser  # noqa: PLC0415  # takes seconds

    from medseg.bundle.safety import unsafe_training  # noqa: PLC0415

    parser = ConfigParser(deepcopy(dict(config)))
    try:
        parser.resolve_macro_and_relative_ids()
    except (KeyError, ValueError, OSError) as error:
        msg = f"macros of {root.name} must name what there is, got {error}."
        raise BundleError(msg, code="bad-config") from error
    if not (unsafe := unsafe_training(parser.config)):
        return
    first = unsafe[0]
    more = f" {len(unsafe) - 1} more like it." if len(unsafe) > 1 else ""
    msg = (
        f"{first.key} in the configs of {root.name} must be known to train and no more, got"
        f" {first.value}: {first.reason}.{more} Add --trust (trust=True) to run it."
    )
    raise BundleError(msg, code="needs-trust")


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
