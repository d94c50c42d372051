"""Classical methods as MONAI dictionary transforms."""

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ensure_tuple_rep

from medseg.errors import UsageError
from medseg.volume import Source, Volume

if TYPE_CHECKING:  # the methods' libraries are imported by who makes one
    from medseg.classical import Method


class ClassicalRegionsd(MapTransform):  # type: ignore[misc]  # monai is untyped
    """Segment images by superpixels, region growing or watershed.

    In YAML:

        _target_: medseg.transforms.ClassicalRegionsd
        keys: image
        new_keys: superpixels
        method: {_target_: medseg.classical.Slic, count: 200}

    Seeds in mm are placed by the tensor's affine, as it is at this point of the list.

    Args:
        keys: Of the images.
        new_keys: Of the masks that are added; one a key.
        method: What segments them.
        allow_missing_keys: Pass over keys that are not there.

    Raises:
        UsageError: If the keys would be overwritten.
    """

    def __init__(
        self,
        keys: KeysCollection,
        new_keys: KeysCollection,
        method: "Method",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.new_keys = ensure_tuple_rep(new_keys, len(self.keys))
        self.method = method
        names = (*self.keys, *self.new_keys)
        if len(set(names)) < len(names):
            msg = f"new_keys must differ from keys and from each other, got {self.new_keys}."
            raise UsageError(msg)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Segment the images of a case.

        Args:
            data: With (C, *spatial) images; they stay as they are.

        Returns:
            The same with (1, *spatial) masks, uint8, or int32 for over 255 regions.

        Raises:
            MedsegError: As the method.
        """
        result = dict(data)
        for key, new_key in self.key_iterator(result, self.new_keys):
            image = result[key]
            array = self.method(_volume(image)).array[None]
            if array.dtype == np.uint16:  # which torch hardly computes with
                array = array.astype(np.int32)
            mask = torch.from_numpy(np.ascontiguousarray(array))
            meta = isinstance(image, MetaTensor)
            result[new_key] = MetaTensor(mask, meta=dict(image.meta)) if meta else mask
        return result


def _volume(image: Any) -> Volume:
    """Return a tensor as a volume; one without metadata has voxels of 1 mm at the origin."""
    dims = image.ndim - 1
    affine = np.eye(dims + 1)
    if isinstance(image, MetaTensor):
        given = np.asarray(image.affine.cpu(), np.float64)
        affine[:dims, :dims] = given[:dims, :dims]
        affine[:dims, dims] = given[:dims, -1]
        image = image.as_tensor()
    array = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
    return Volume(array, affine, Source())
