"""Predictor: a bundle's weights loaded once, called on volumes."""

import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage, LoadImaged

from medseg.bundle import Bundle, load_bundle
from medseg.bundle.build import build_inference
from medseg.errors import BundleError, InputError, UsageError
from medseg.inference.restore import mask_from_class_maps
from medseg.inference.tta import mirrored
from medseg.io.hounsfield import why_not_hounsfield
from medseg.transforms import metatensor
from medseg.volume import Segmentation, Volume

AIR_HU = -1024.0
"""What CT padding becomes for the network; the lower end of the 12-bit HU scale."""


class Predictor:
    """Segment volumes with one bundle.

    The weights are loaded once. Calling it spawns no process and changes no global state.

    Args:
        bundle: The bundle, its folder, or its name.
        device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`.
        overlap: Overlap of the sliding window, 0 to below 1; the bundle's own when left out.
        tta: Average over mirrorings: eight times the work in 3D.

    Raises:
        BundleError: If the bundle cannot segment.
        UsageError: If the device is not there.

    Examples:
        >>> predictor = Predictor("hippocampus_mri")  # doctest: +SKIP
        >>> segmentation = predictor(medseg.read("scan.nii.gz"))  # doctest: +SKIP
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        *,
        device: str = "auto",
        overlap: float | None = None,
        tta: bool = False,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        self.device = resolve_device(device)
        if overlap is not None and not 0 <= overlap < 1:
            msg = f"overlap must be at least 0 and below 1, got {overlap!r}."
            raise UsageError(msg)
        self._parts = build_inference(self.bundle, self.device, overlap=overlap)
        self._network: Any = mirrored(self._parts.network) if tta else self._parts.network

    def __call__(self, volume: Volume) -> Segmentation:
        """Segment one volume.

        Args:
            volume: (C, I, J, K) with as many channels as the bundle expects; not changed.

        Returns:
            The mask on the grid of the volume.

        Raises:
            InputError: If the volume is 2D (`wrong-dimensions`), has other channels
                (`wrong-channels`), or goes to a CT bundle without being Hounsfield units
                (`not-hu-like`).
            BundleError: If the network returns other classes than the metadata names.
            GeometryError: If preprocessing rotates the grid.
        """
        self._check(volume)
        started = time.perf_counter()
        image = self._preprocess(volume)
        preprocessed = time.perf_counter()
        class_maps = self._infer(image)
        inferred = time.perf_counter()
        mask = mask_from_class_maps(
            class_maps, np.asarray(image.affine, np.float64), volume.shape, volume.affine
        )
        restored = time.perf_counter()
        return Segmentation(
            array=mask,
            affine=volume.affine,
            labels=self.bundle.labels,
            source=volume.source,
            seconds={
                "preprocess": preprocessed - started,
                "network": inferred - preprocessed,
                "restore": restored - inferred,
            },
        )

    def _check(self, volume: Volume) -> None:
        if not isinstance(volume, Volume):  # a path or an array, when called by hand
            msg = (
                f"volume must be a medseg.Volume, got {type(volume).__name__}."
                " Read one with medseg.read(PATH)."
            )
            raise UsageError(msg)
        wanted = self.bundle.input_rule.channels
        if volume.is_2d:
            msg = f"volume must be 3D for {self.bundle.name}, got a 2D image."
            raise InputError(msg, code="wrong-dimensions")
        if volume.channels != wanted:
            msg = (
                f"volume must have {wanted} channels for {self.bundle.name}, got {volume.channels}."
            )
            raise InputError(msg, code="wrong-channels")
        if self._is_ct:
            _check_hounsfield(volume)

    @property
    def _is_ct(self) -> bool:
        return self.bundle.input_rule.modality == ("CT",)

    def _preprocess(self, volume: Volume) -> MetaTensor:
        image = metatensor(volume)
        if np.may_share_memory(image.numpy(), volume.array):
            image = image.clone()  # some of MONAI's transforms work in place
        if self._is_ct:
            image = image.clamp(min=AIR_HU)
        data: dict[str, Any] = {"image": image}
        with warnings.catch_warnings():  # MONAI's own deprecations are not the user's concern
            warnings.simplefilter("ignore", FutureWarning)
            for transform in self._parts.preprocessing:
                if not isinstance(transform, LoadImage | LoadImaged):
                    data = transform(data)
        result: MetaTensor = data["image"]
        return result

    def _infer(self, image: MetaTensor) -> torch.Tensor:
        inputs = image.as_tensor()[None].to(self.device)
        with torch.inference_mode():
            result = self._parts.inferer(inputs, self._network)
        self._check_class_maps(result[0])
        return result[0]

    def _check_class_maps(self, class_maps: torch.Tensor) -> None:
        classes = max(label.index for label in self.bundle.labels) + 1
        if len(class_maps) != classes:
            msg = (
                f"network of {self.bundle.name} must return a map a class, got {len(class_maps)}"
                f" maps for {classes} classes. Correct channel_def in its metadata."
            )
            raise BundleError(msg, code="wrong-classes")
        if not torch.isfinite(class_maps).all():
            msg = f"network of {self.bundle.name} must return finite values, got NaN or infinity."
            raise InputError(msg, code="non-finite-output")


def _check_hounsfield(volume: Volume) -> None:
    array = volume.array
    sample = array[:, ::4, ::4, ::4]  # enough for a median
    reason = why_not_hounsfield(float(array.min()), float(np.median(sample)), float(array.max()))
    if reason:
        msg = f"volume must hold Hounsfield units for a CT bundle, got values of which {reason}."
        raise InputError(msg, code="not-hu-like")


def resolve_device(name: str) -> torch.device:
    """Return the device that a name stands for.

    Args:
        name: `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns:
        The device.

    Raises:
        UsageError: If the name is none of these or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind != "cuda" or (number and not number.isdigit()):
        msg = f"device must be auto, cpu, cuda or cuda:N, got {name!r}."
        raise UsageError(msg)
    count = torch.cuda.device_count()
    if int(number or 0) >= count:
        msg = f"device must be there, got {name!r} with {count} CUDA devices. Use --device cpu."
        raise UsageError(msg)
    return torch.device(name)
