"""The network of a plan, as it stands in a bundle's YAML."""

from collections.abc import Sequence
from typing import Any

from medseg.errors import UsageError
from medseg.planning.memory import features
from medseg.planning.topology import Topology

Network = str
"""One of `NETWORKS`, or for pictures any of `medseg.networks.network_names`."""
NETWORKS = ("dynunet", "unet", "segresnet")
"""Networks that are planned: the others are as their papers have them, whatever the images."""

INSTANCE_NORM = ["INSTANCE", {"affine": True}]
SEGRESNET_FILTERS = 32
SEGRESNET_BLOCKS = (1, 2, 2, 4)
"""Source: Myronenko, 3D MRI brain tumor segmentation using autoencoder regularization, 2018."""


def network_def(
    network: Network, topology: Topology, *, channels: int, deepest: int | None = None
) -> dict[str, Any]:
    """Return the `network_def` of a bundle.

    Args:
        network: Which network.
        topology: Poolings and kernels, with the patch.
        channels: Image channels.
        deepest: Most supervised levels beside the finest; as many as there are when left out.

    Returns:
        `_target_` and arguments; `out_channels` refers to `@num_classes`.

    Raises:
        UsageError: If the network is unknown.
    """
    if network == "dynunet":
        return _dynunet(topology, channels, deepest)
    if network == "unet":
        return _unet(topology, channels)
    if network == "segresnet":
        return _segresnet(topology, channels)
    from medseg.networks import network_names  # noqa: PLC0415  # torch takes seconds

    if network in network_names():
        return _of_table(network, topology, channels)
    msg = f"network must be among {', '.join([*NETWORKS, *network_names()])}, got {network!r}."
    raise UsageError(msg)


def _of_table(network: str, topology: Topology, channels: int) -> dict[str, Any]:
    """Return the definition that takes any network of the table: one key chooses it."""
    if len(topology.patch_size) != 2:
        msg = (
            f"network must be among {', '.join(NETWORKS)} for 3D images, got {network!r}, which"
            " is of pictures."
        )
        raise UsageError(msg)
    return {
        "_target_": "medseg.networks.build_network",
        "name": "@network_name",
        "in_channels": channels,
        "out_channels": "@num_classes",
        "encoder": "@encoder",
        "encoder_weights": "@encoder_weights",
    }


def supervised_levels(topology: Topology) -> int:
    """Return the levels beside the finest that are supervised: all but the two coarsest.

    Args:
        topology: Of the network.

    Returns:
        Number of levels, 0 where there are too few poolings.

    Source:
        nnU-Net supervises every decoder level but the coarsest, whose weight it sets to 0.
    """
    return max(0, len(topology.strides) - 3)


def patch_divisors(network: Network, topology: Topology) -> tuple[int, ...]:
    """Return what a network's input has to be a multiple of along each axis.

    Args:
        network: Which network.
        topology: Of the plan.

    Returns:
        One number an axis.
    """
    if network not in NETWORKS:
        return (1,) * len(topology.patch_size)
    if network == "segresnet":
        return (2 ** (len(SEGRESNET_BLOCKS) - 1),) * len(topology.patch_size)
    return topology.divisors


def _dynunet(topology: Topology, channels: int, deepest: int | None) -> dict[str, Any]:
    stages, dims = len(topology.strides), len(topology.patch_size)
    levels = supervised_levels(topology) if deepest is None else deepest
    return {
        "_target_": "medseg.networks.DynUNet",
        "spatial_dims": dims,
        "in_channels": channels,
        "out_channels": "@num_classes",
        "kernel_size": [list(kernel) for kernel in topology.kernels],
        "strides": [list(stride) for stride in topology.strides],
        "upsample_kernel_size": [list(stride) for stride in topology.strides[1:]],
        "filters": list(features(stages, dims)),
        "norm_name": INSTANCE_NORM,
        "deep_supervision": "@deep_supervision" if levels else False,
        "deep_supr_num": max(1, levels),
    }


def _unet(topology: Topology, channels: int) -> dict[str, Any]:
    stages, dims = len(topology.strides), len(topology.patch_size)
    return {
        "_target_": "UNet",
        "spatial_dims": dims,
        "in_channels": channels,
        "out_channels": "@num_classes",
        "channels": list(features(stages, dims)),
        "strides": [list(stride) for stride in topology.strides[1:]],
        "num_res_units": 2,
        "norm": INSTANCE_NORM,
    }


def _segresnet(topology: Topology, channels: int) -> dict[str, Any]:
    return {
        "_target_": "SegResNet",
        "spatial_dims": len(topology.patch_size),
        "in_channels": channels,
        "out_channels": "@num_classes",
        "init_filters": SEGRESNET_FILTERS,
        "norm": INSTANCE_NORM,
        "blocks_down": list(SEGRESNET_BLOCKS),
        "blocks_up": [1] * (len(SEGRESNET_BLOCKS) - 1),
    }


def is_supervised_deeply(definition: dict[str, Any]) -> bool:
    """Return whether a `network_def` returns several levels in training.

    Args:
        definition: As `network_def` returns it.

    Returns:
        Whether.
    """
    return definition.get("deep_supervision") == "@deep_supervision"


def padded_patch(patch_size: Sequence[int], divisors: Sequence[int]) -> tuple[int, ...]:
    """Return a patch whose axes are multiples of what a network asks for.

    Args:
        patch_size: Voxels along each axis.
        divisors: One number an axis.

    Returns:
        Voxels along each axis, none smaller.

    Examples:
        >>> padded_patch((20, 24), (8, 8))
        (24, 24)
    """
    return tuple(-(-size // step) * step for size, step in zip(patch_size, divisors, strict=True))
