"""Two inferers for a bundle's YAML: MONAI's sliding window, and one that ends at the mask."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SlidingWindowInferer
from monai.utils import MetaKeys, convert_to_dst_type

from medseg.inference.grids import grids_of, plain_tensor
from medseg.inference.maps import StreamedMaps, first_of, require_class_maps
from medseg.inference.restore import Meaning, Restoring, restore_mask
from medseg.inference.stream import OutputFormError, Streaming, stream_class_maps
from medseg.inference.windows import windows_of

Network = Callable[..., torch.Tensor]


class StreamingInferer(SlidingWindowInferer):  # type: ignore[misc]  # monai is untyped
    """MONAI's sliding window, stitched row by row along one axis.

    Takes the arguments of `monai.inferers.SlidingWindowInferer` and gives the same class maps on
    the network's grid. Beside them it holds one row of windows, and no weights of the whole image;
    windows of one value cost nothing, see `stream_class_maps`. What cannot be streamed (networks
    with several outputs or outputs of another size, `with_coord`) is left to MONAI's own.

    Args:
        *args: As MONAI's.
        skip_empty: Run the network once for all windows of the same one value.
        **kwargs: As MONAI's.
    """

    def __init__(self, *args: Any, skip_empty: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.skip_empty = skip_empty

    def __call__(
        self, inputs: torch.Tensor, network: Network, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Run a network over images.

        Args:
            inputs: (B, C, *spatial).
            network: Maps (B, C, *window) to (B, classes, *window).
            *args: Further arguments of the network.
            **kwargs: Further arguments of the network.

        Returns:
            (B, classes, *spatial), on the inputs' device unless `device` says another.
        """
        if getattr(self, "with_coord", False):
            return self._dense(inputs, network, *args, **kwargs)
        try:
            return self._streamed(inputs, lambda window: network(window, *args, **kwargs))
        except OutputFormError:
            return self._dense(inputs, network, *args, **kwargs)

    def _dense(
        self, inputs: torch.Tensor, network: Network, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        result: torch.Tensor = super().__call__(inputs, network, *args, **kwargs)
        return result

    def _streamed(
        self, inputs: torch.Tensor, network: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        device = self.device or inputs.device
        if self.device is None and self.cpu_thresh and inputs[0, 0].numel() > self.cpu_thresh:
            device = torch.device("cpu")
        plain = plain_tensor(inputs)
        windows = windows_of(self, plain.shape[2:], torch.device(self.sw_device or inputs.device))
        # planes across the last axis would lie scattered in memory
        axis = int(np.argmax(windows.padded_shape[:-1])) if len(windows.size) > 1 else 0
        result: torch.Tensor | None = None
        for number, image in enumerate(plain):
            slabs = stream_class_maps(
                image,
                network,
                windows,
                axis=axis,
                how=Streaming(int(self.sw_batch_size), self.skip_empty),
            )
            for slab in slabs:
                if result is None:
                    shape = (len(plain), len(slab.maps), *windows.shape)
                    result = torch.empty(shape, dtype=slab.maps.dtype, device=device)
                planes = result[number].narrow(axis + 1, slab.first, slab.maps.shape[axis + 1])
                planes.copy_(slab.maps)
        if result is None:
            msg = "inputs must hold an image, got none"
            raise ValueError(msg)
        converted: torch.Tensor = convert_to_dst_type(result, inputs, device=device)[0]
        return converted


class EvenInferer(StreamingInferer):
    """`StreamingInferer` with windows and weights as nnU-Net v2 lays them.

    Windows lie at even distances, and the Gaussian that weighs them is centred on a voxel.

    Args:
        roi_size: Of a window; voxels.
        sw_batch_size: Windows that the network gets at once.
        overlap: Smallest share of a window that the next one sees as well.
        skip_empty: Run the network once for all windows of the same one value.
        half_sums: Round sums and class maps to float16 as nnU-Net does, which decides voxels of
            which two classes are nearly equal.
        **kwargs: As MONAI's.
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        sw_batch_size: int = 1,
        overlap: float = 0.5,
        skip_empty: bool = True,
        half_sums: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            roi_size, sw_batch_size, overlap, mode="gaussian", skip_empty=skip_empty, **kwargs
        )
        self.even_steps = True
        self.half_sums = half_sums
        self.roi_weight_map = centred_gaussian(roi_size)


def centred_gaussian(size: Sequence[int]) -> torch.Tensor:
    """Return what the voxels of a window count: 10 in the middle, by a Gaussian of 1/8 its size.

    Args:
        size: Of the window; voxels.

    Returns:
        (*size) float32, rounded to half precision, nowhere 0.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021, methods ("inference"), and its code.
    """
    from scipy import ndimage  # noqa: PLC0415  (most bundles do without)

    weights = np.full(tuple(size), 10.0)
    for axis, extent in enumerate(size):
        impulse = np.zeros(extent)
        impulse[extent // 2] = 1
        bell = ndimage.gaussian_filter1d(impulse, extent / 8, mode="constant")
        shape = [1] * len(size)
        shape[axis] = extent
        weights *= (bell / bell.max()).reshape(shape)
    half = torch.from_numpy(weights).half().float()
    return torch.where(half > 0, half, half[half > 0].min())


class MaskInferer(Inferer):  # type: ignore[misc]  # monai is untyped
    """From an image on the network's grid to the mask on the grid of the file it came from.

    Takes the place of the sliding window, `Invertd` and `AsDiscreted`: windows are stitched,
    interpolated back and decided row by row, and class maps never exist as a whole.

    Args:
        inferer: MONAI's sliding window, which says where windows lie and what they count.
        values: Value in the mask of each channel; of classes the first is background.
        regions: Channels overlap: each is painted, over those before it, where its logit is
            positive. Else the largest channel wins.
        skip_empty: Run the network once for all windows of the same one value.
        restoring: Rules of other software by which class maps come to the source grid, see
            `medseg.inference.restore.Restoring`; medseg's own when left out.
    """

    def __init__(
        self,
        inferer: SlidingWindowInferer,
        values: Sequence[int],
        regions: bool = False,
        skip_empty: bool = True,
        restoring: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.restoring = None if restoring is None else Restoring(**restoring)
        self.inferer = inferer
        self.values = tuple(int(value) for value in values)
        self.regions = regions
        self.skip_empty = skip_empty

    def __call__(
        self, inputs: torch.Tensor, network: Network, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Segment one image.

        Args:
            inputs: (1, C, *spatial) `MetaTensor` that knows where it came from (`original_affine`
                and `spatial_shape`, as `LoadImage` sets them).
            network: Maps (B, C, *window) to (B, classes, *window).
            *args: Further arguments of the network.
            **kwargs: Further arguments of the network.

        Returns:
            (1, 1, *source) values of the mask, with the affine of the source.

        Raises:
            ValueError: If there are several images, or one that does not know where it came from.
            GeometryError: If preprocessing rotated the image.
            BundleError: If the network returns other than a map a value (`wrong-classes`).
            InputError: If it returns what is not finite (`non-finite-output`).
        """
        source_shape, source_affine, affine = grids_of(inputs)
        plain = plain_tensor(inputs)
        device = torch.device(self.inferer.sw_device or inputs.device)
        windows = windows_of(self.inferer, plain.shape[2:], device)
        maps = StreamedMaps(
            plain[0],
            [lambda window: network(window, *args, **kwargs)],
            windows,
            affine,
            how=Streaming(int(self.inferer.sw_batch_size), self.skip_empty),
            joined=self._checked,
        )
        meaning = Meaning(self.values, self.regions, restoring=self.restoring)
        mask = restore_mask([maps], source_shape, source_affine, meaning)
        meta = inputs.meta if isinstance(inputs, MetaTensor) else {}
        result: torch.Tensor = MetaTensor(
            torch.from_numpy(np.ascontiguousarray(mask))[None, None],
            affine=torch.from_numpy(source_affine)[None],
            meta={key: value for key, value in meta.items() if key != MetaKeys.AFFINE},
        )
        marks: Any = result
        marks.applied_operations = [[]]  # nothing is left to be undone
        marks.is_batch = True
        return result

    def _checked(self, several: Sequence[torch.Tensor]) -> torch.Tensor:
        maps = first_of(several)
        require_class_maps(maps, len(self.values), "the bundle")
        return maps
