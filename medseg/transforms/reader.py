"""medseg's readers as a MONAI image reader, so that bundles load every format the same way."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import ImageReader as MonaiImageReader
from monai.data import MetaTensor
from monai.utils import MetaKeys, SpaceKeys

from medseg.errors import MedsegError
from medseg.io.masks import read_mask
from medseg.io.objects import read_objects
from medseg.io.read import read_channels
from medseg.transforms.resample import STATES_SPACING
from medseg.volume import Source, Volume


class ImageReader(MonaiImageReader):  # type: ignore[misc]  # monai is untyped
    """Read DICOM series, NIfTI, NRRD, MHA, PNG, JPEG and TIFF with their true geometry.

    For `LoadImaged(keys, reader=medseg.transforms.ImageReader())`. The array comes channel first
    ((C, I, J, K), or (C, rows, columns) in 2D) and says so in its metadata, so that
    `EnsureChannelFirstd` leaves it as it is. Where MONAI's own readers guess (two series in a
    folder, missing slices, a NIfTI affine with shear) this one raises.

    MONAI 1.6 tries its own readers on a file whose reader raised in `read`, and takes the first
    that gives an array. A refusal is therefore kept in what `read` returns and raised by
    `get_data`, where nothing is tried any more.

    Args:
        frame: Frame of a 4D image, counted from zero.
        channels: Channels the network expects of a 4D file.
        mask: Read labels: the pixels of a palette PNG are its indices, those of a one-bit PNG 0
            and 1, and what holds fractions is refused.
        objects: Read labels that tell objects apart, as layers of their numbers
            (`ObjectInstances.layers`).
    """

    def __init__(
        self,
        frame: int | None = None,
        channels: int = 1,
        *,
        mask: bool = False,
        objects: bool = False,
    ) -> None:
        super().__init__()
        self.frame = frame
        self.channels = channels
        self.mask = mask
        self.objects = objects

    def verify_suffix(self, filename: Any) -> bool:  # noqa: ARG002  # MONAI's signature
        """Accept every path: `medseg.io.read` decides, and says why it refuses.

        Args:
            filename: Path or paths.

        Returns:
            True.
        """
        return True

    def read(self, data: Any, **kwargs: Any) -> Volume | MedsegError:  # noqa: ARG002
        """Read one image; several paths are the channels of one.

        Args:
            data: Path, or sequence of paths.
            **kwargs: Not used.

        Returns:
            The volume, or the reason why there is none.
        """
        paths = [data] if isinstance(data, str | Path) else list(data)
        try:
            if self.objects:
                objects, problems = read_objects(Path(paths[0]))
                source = Source(format="raster", has_spacing=False, problems=problems)
                return Volume(objects.layers(), np.eye(3), source)
            if self.mask:
                return read_mask(Path(paths[0]))
            return read_channels(paths, frame=self.frame, channels=self.channels)
        except MedsegError as error:
            return error

    def get_data(self, img: Any) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Return array and metadata as MONAI's `LoadImage` wants them.

        Args:
            img: What `read` returned.

        Returns:
            (C, *spatial) array and its metadata.

        Raises:
            MedsegError: If the image was refused; code and message say why.
        """
        if isinstance(img, MedsegError):
            raise img
        return img.array, _meta(img)


def metatensor(volume: Volume, dtype: torch.dtype = torch.float32) -> MetaTensor:
    """Turn a volume into what MONAI's transforms work on.

    Args:
        volume: The volume.
        dtype: Type of the tensor.

    Returns:
        (C, *spatial) tensor with its affine; shares no memory with the volume unless the type
        fits already.
    """
    array = volume.array
    if any(stride < 0 for stride in array.strides):
        # one pass over memory, in the order in which it lies
        array = array.astype(np.float32 if dtype == torch.float32 else array.dtype, order="K")
    return MetaTensor(torch.as_tensor(array).to(dtype), meta=_meta(volume))


def _meta(volume: Volume) -> dict[str, Any]:
    affine = np.eye(4)
    dims = len(volume.shape)
    affine[:dims, :dims] = volume.affine[:-1, :-1]
    affine[:dims, 3] = volume.affine[:-1, -1]
    return {
        MetaKeys.AFFINE: affine,
        MetaKeys.ORIGINAL_AFFINE: affine.copy(),
        MetaKeys.SPATIAL_SHAPE: np.asarray(volume.shape),
        MetaKeys.ORIGINAL_CHANNEL_DIM: 0,
        MetaKeys.SPACE: SpaceKeys.RAS,
        STATES_SPACING: volume.source.has_spacing,
    }
