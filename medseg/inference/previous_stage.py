"""The first network of a cascade, run where the second one's images are prepared."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from medseg.errors import BundleError
from medseg.inference.execution import Execution
from medseg.inference.preprocess import affine_of
from medseg.volume import Source, Volume

OUTSIDE = -1
"""In a mask, of background where the image is zero."""


@dataclass(frozen=True)
class StageRun:
    """How the network of an earlier stage is run.

    Attributes:
        device: `cpu`, `cuda` or `cuda:N`.
        execution: Library, precision, memory; the fastest way that agrees with torch when None.
        tta: Average over mirrorings.
    """

    device: str = "cpu"
    execution: Execution | None = None
    tta: bool = False


class PreviousStaged(MapTransform):  # type: ignore[misc]  # monai is untyped
    """Segment images with a bundle of their own: the next network gets the masks beside them.

    The bundle is loaded with the first image. What it leaves background where the image is zero,
    but for holes, is -1 in the mask, as in nnU-Net: where that is interpolated, it counts apart.

    Args:
        keys: Of the image.
        bundle: Folder of the bundle.
        mask_key: That the mask gets.
        device: That its network is run on; `Predictor` has it run as its own networks.
        allow_missing_keys: Pass over keys that are not there.

    Raises:
        BundleError: With the first image, if that bundle has a stage before it too
            (`nested-stages`), or cannot be loaded.
    """

    def __init__(
        self,
        keys: KeysCollection,
        bundle: str,
        mask_key: str = "previous",
        device: torch.device | str = "cpu",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.bundle = bundle
        self.mask_key = mask_key
        self.run = StageRun(str(device))
        self._predictor: Any = None

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Segment the image of a case.

        Args:
            data: With a (C, *spatial) image, as its file has it, that carries an affine.

        Returns:
            The same with a (1, *spatial) mask on the grid of the image.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            volume = Volume(np.asarray(image), affine_of(image), Source())
            mask = self._ready()(volume).array.astype(np.int32)
            mask[(mask == 0) & ~_filled(volume.array)] = OUTSIDE
            result[self.mask_key] = MetaTensor(torch.from_numpy(mask)[None], affine=image.affine)
        return result

    def _ready(self) -> Any:
        if self._predictor is None:
            from medseg.inference.predictor import Predictor  # noqa: PLC0415  (which runs this)

            run = self.run
            predictor = Predictor(
                Path(self.bundle), device=run.device, execution=run.execution, tta=run.tta
            )
            if predictor.previous_stages:
                msg = (  # a bundle that names itself would go on for ever
                    "a cascade must have two stages, got a previous stage"
                    f" ({Path(self.bundle).name}) that has one before it."
                )
                raise BundleError(msg, code="nested-stages")
            self._predictor = predictor
        return self._predictor


def _filled(array: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return where a (C, *spatial) image is not zero in some channel, holes filled."""
    from scipy import ndimage  # noqa: PLC0415  (light commands pass by here)

    filled: npt.NDArray[np.bool_] = ndimage.binary_fill_holes((array != 0).any(axis=0))
    return filled
