"""Predictor: a bundle's weights loaded once, called on volumes."""

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage, LoadImaged

from medseg.bundle import Bundle, load_bundle
from medseg.bundle.build import InferenceParts, build_inference
from medseg.errors import BundleError, InputError, UsageError
from medseg.inference.postprocess import postprocessed
from medseg.inference.restore import ClassMaps, Meaning, restore_mask
from medseg.inference.tta import mirrored
from medseg.io.hounsfield import AIR_HU, why_not_hounsfield
from medseg.transforms import metatensor
from medseg.volume import Segmentation, Volume

BundleLike = Bundle | str | Path


class Predictor:
    """Segment volumes with one bundle.

    The weights are loaded once. Calling it spawns no process and changes no global state.

    Args:
        bundle: The bundle, its folder, or its name; of several the probabilities are averaged.
        device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`.
        overlap: Overlap of the sliding window, 0 to below 1; the bundle's own when left out.
        tta: Average over mirrorings: eight times the work in 3D.

    Raises:
        BundleError: If a bundle cannot segment, or several do not find the same labels in the same
            channels (`ensemble-mismatch`).
        UsageError: If the device is not there.

    Examples:
        >>> predictor = Predictor("hippocampus_mri")  # doctest: +SKIP
        >>> segmentation = predictor(medseg.read("scan.nii.gz"))  # doctest: +SKIP
    """

    def __init__(
        self,
        bundle: BundleLike | Sequence[BundleLike],
        *,
        device: str = "auto",
        overlap: float | None = None,
        tta: bool = False,
    ) -> None:
        several = [bundle] if isinstance(bundle, Bundle | str | Path) else list(bundle)
        self.bundles = tuple(b if isinstance(b, Bundle) else load_bundle(b) for b in several)
        _require_agreement(self.bundles)
        self.bundle = self.bundles[0]
        self.device = resolve_device(device)
        if overlap is not None and not 0 <= overlap < 1:
            msg = f"overlap must be at least 0 and below 1, got {overlap!r}."
            raise UsageError(msg)
        self._members = [
            [
                build_inference(one, self.device, overlap=overlap, weights=weights)
                for weights in one.weight_files
            ]
            for one in self.bundles
        ]
        self._tta = tta
        self._several = sum(len(parts) for parts in self._members) > 1

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
        seconds = {"preprocess": 0.0, "network": 0.0}
        members = [self._class_maps(volume, parts, seconds) for parts in self._members]
        started = time.perf_counter()
        threshold = 0.5 if self._several else 0.0
        meaning = Meaning(self.bundle.values, self.bundle.regions, threshold)
        mask = restore_mask(members, volume.shape, volume.affine, meaning)
        seconds["restore"] = time.perf_counter() - started
        result = Segmentation(
            array=mask,
            affine=volume.affine,
            labels=self.bundle.labels,
            source=volume.source,
            seconds=seconds,
        )
        return postprocessed(result, self.bundle.postprocessing)

    def _class_maps(
        self, volume: Volume, members: Sequence[InferenceParts], seconds: dict[str, float]
    ) -> ClassMaps:
        """Return what the networks of one bundle say on average; logits where it is one alone."""
        started = time.perf_counter()
        image = self._preprocess(volume, members[0])
        preprocessed = time.perf_counter()
        total: torch.Tensor | None = None
        for parts in members:
            maps = self._infer(image, parts)
            if self._several:
                maps = self._probabilities(maps)
            total = maps if total is None else total.add_(maps)
        if total is None:
            msg = "members must hold a network, got none"
            raise ValueError(msg)
        seconds["preprocess"] += preprocessed - started
        seconds["network"] += time.perf_counter() - preprocessed
        if len(members) > 1:
            total = total / len(members)
        return ClassMaps(total, np.asarray(image.affine, np.float64))

    def _probabilities(self, maps: torch.Tensor) -> torch.Tensor:
        maps = maps.float()
        return maps.sigmoid() if self.bundle.regions else maps.softmax(dim=0)

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

    def _preprocess(self, volume: Volume, parts: InferenceParts) -> MetaTensor:
        image = metatensor(volume)
        if np.may_share_memory(image.numpy(), volume.array):
            image = image.clone()  # some of MONAI's transforms work in place
        if self._is_ct:
            image = image.clamp(min=AIR_HU)
        data: dict[str, Any] = {"image": image}
        with warnings.catch_warnings():  # MONAI's own deprecations are not the user's concern
            warnings.simplefilter("ignore", FutureWarning)
            for transform in parts.preprocessing:
                if not isinstance(transform, LoadImage | LoadImaged):
                    data = transform(data)
        result: MetaTensor = data["image"]
        return result

    def _infer(self, image: MetaTensor, parts: InferenceParts) -> torch.Tensor:
        inputs = image.as_tensor()[None].to(self.device)
        with torch.inference_mode():
            network: Any = mirrored(parts.network) if self._tta else parts.network
            result = parts.inferer(inputs, network)
        self._check_class_maps(result[0])
        return result[0]

    def _check_class_maps(self, class_maps: torch.Tensor) -> None:
        classes = len(self.bundle.values)
        if len(class_maps) != classes:
            msg = (
                f"network of {self.bundle.name} must return a map a class, got {len(class_maps)}"
                f" maps for {classes} classes. Correct channel_def in its metadata."
            )
            raise BundleError(msg, code="wrong-classes")
        if not torch.isfinite(class_maps).all():
            msg = f"network of {self.bundle.name} must return finite values, got NaN or infinity."
            raise InputError(msg, code="non-finite-output")


def _require_agreement(bundles: Sequence[Bundle]) -> None:
    if not bundles:
        msg = "bundle must name at least one bundle, got none."
        raise UsageError(msg)
    first = bundles[0]
    wanted = _signature(first)
    for other in bundles[1:]:
        if _signature(other) != wanted:
            msg = (
                f"bundles must find the same labels in the same channels, got {first.name} with"
                f" {wanted} and {other.name} with {_signature(other)}."
            )
            raise BundleError(msg, code="ensemble-mismatch")


def _signature(bundle: Bundle) -> dict[str, Any]:
    return {
        "labels": {label.name: label.index for label in bundle.labels},
        "regions": bundle.regions,
        "channels": bundle.input_rule.channels,
        "channel_names": [name for name, _ in bundle.input_rule.channel_rules],
        "modality": bundle.input_rule.modality,
        "postprocessing": bundle.postprocessing,
    }


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
