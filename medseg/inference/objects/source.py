"""An inferer for a bundle's YAML that ends at the objects of the file."""

from typing import Any

import torch
from monai.inferers import Inferer

from medseg.inference.grids import grids_of, plain_tensor
from medseg.inference.objects.paste import onto_between
from medseg.inference.objects.tiles import Detect, ObjectInferer
from medseg.objects import ObjectInstances


class SourceObjectInferer(Inferer):  # type: ignore[misc]  # monai is untyped
    """From an image on the network's grid to the objects on the grid of the file it came from.

    Args:
        inferer: That finds them on the network's grid.
    """

    def __init__(self, inferer: ObjectInferer) -> None:
        super().__init__()
        self.inferer = inferer

    def __call__(
        self,
        inputs: torch.Tensor,
        network: Detect,
        *_: Any,
        **__: Any,
    ) -> list[ObjectInstances]:
        """Find the objects of one image.

        Args:
            inputs: (1, C, rows, columns) `MetaTensor` that knows where it came from
                (`original_affine` and `spatial_shape`, as `LoadImage` sets them).
            network: As `MaskRcnn` in evaluation mode.

        Returns:
            Its objects, the surest first.

        Raises:
            ValueError: If there are several images, or one that does not know where it came from.
            GeometryError: If preprocessing turned or flipped the image.
        """
        (rows, columns), source, own = grids_of(inputs)
        onto = onto_between(own, source, (rows, columns))
        return [self.inferer.find(plain_tensor(inputs)[0], network, onto)]
