"""Phantoms as training data: cases are seeds, images are made on the fly, no files needed."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Transform

from medseg.data.phantom import phantom_ct


def phantom_cases(first_seed: int, count: int) -> list[dict[str, Any]]:
    """List phantom cases, for the `data` of a MONAI dataset.

    Args:
        first_seed: Seed of the first case.
        count: Number of cases; seeds rise by one.

    Returns:
        One dictionary a case.

    Examples:
        >>> phantom_cases(7, 2)
        [{'seed': 7}, {'seed': 8}]
    """
    return [{"seed": seed} for seed in range(first_seed, first_seed + count)]


class LoadPhantomd(Transform):  # type: ignore[misc]  # monai is untyped
    """Make the phantom of a case; takes the place of `LoadImaged`.

    Deterministic, so that `CacheDataset` makes each phantom once. Each phantom comes on a grid
    drawn by its seed: tilted, anisotropic, with any axis order.

    Args:
        image_key: Gets the image, (1, I, J, K) float32, HU.
        label_key: Gets the mask, (1, I, J, K) uint8.
    """

    def __init__(self, image_key: str = "image", label_key: str = "label") -> None:
        self.image_key = image_key
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add image and mask to a case.

        Args:
            data: A case of `phantom_cases`.

        Returns:
            The case with images that carry affine and a name.
        """
        seed = int(data["seed"])
        volume, mask = phantom_ct(seed)
        result = dict(data)
        arrays = {
            self.image_key: torch.from_numpy(volume.array).float(),
            self.label_key: torch.from_numpy(mask[None]),
        }
        for key, array in arrays.items():
            affine = torch.from_numpy(volume.affine)
            meta = {
                "original_affine": affine.clone(),
                "original_channel_dim": 0,
                "filename_or_obj": f"phantom_{seed:05d}",
            }
            result[key] = MetaTensor(array, affine=affine, meta=meta)
        return result
