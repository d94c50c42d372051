"""Where an image on the network's grid came from."""

from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import MetaKeys

from medseg.geometry import Affine


def grids_of(inputs: torch.Tensor) -> tuple[tuple[int, ...], Affine, Affine]:
    """Return shape and affine of the source, and the affine of the network's grid.

    Args:
        inputs: (1, C, *spatial) `MetaTensor`.

    Returns:
        Shape of the source, its affine, and that of the inputs; affines of as many axes.

    Raises:
        ValueError: If there are several images, or one that does not know where it came from.
    """
    meta: dict[Any, Any] = inputs.meta if isinstance(inputs, MetaTensor) else {}
    wanted = (MetaKeys.AFFINE, MetaKeys.ORIGINAL_AFFINE, MetaKeys.SPATIAL_SHAPE)
    known = [key for key in wanted if key in meta]
    if len(inputs) != 1 or len(known) != len(wanted):
        msg = (
            "inputs must be one image that knows where it came from, got"
            f" {tuple(inputs.shape)} with {', '.join(known) or 'no metadata'}"
        )
        raise ValueError(msg)
    dims = inputs.ndim - 2
    picked = np.ix_([*range(dims), -1], [*range(dims), -1])
    own, source = (
        np.asarray(affine, np.float64).reshape(-1, 4, 4)[0][picked]
        for affine in (meta[MetaKeys.AFFINE], meta[MetaKeys.ORIGINAL_AFFINE])
    )
    shape = np.asarray(meta[MetaKeys.SPATIAL_SHAPE]).ravel()[:dims]
    return tuple(int(n) for n in shape), source, own


def plain_tensor(inputs: torch.Tensor) -> torch.Tensor:
    """Return a tensor without metadata.

    Args:
        inputs: Tensor or `MetaTensor`.
    """
    return inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
