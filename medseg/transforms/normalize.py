"""Intensities on the scale that a network is trained on, a scheme a channel."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from scipy import ndimage

from medseg.errors import UsageError

SMALLEST_STD = 1e-8
"""A channel that varies less is constant: it is shifted and not divided. Source: nnU-Net v2."""

_NUMBERS = {
    "ct": ("low", "high", "mean", "std"),
    "fixed": ("mean", "std"),
    "zscore": (),
    "rescale": (),
    "none": (),
}

_POINTWISE = ("ct", "fixed", "none")


class NormalizeChannelsd(MapTransform):  # type: ignore[misc]  # monai is untyped
    """Normalise each channel by a scheme of its own.

    * `{scheme: ct, low, high, mean, std}`: clipped to low and high, then shifted and divided by
      mean and standard deviation of the training data's foreground; HU.
    * `{scheme: zscore, nonzero: bool}`: mean 0 and standard deviation 1 over the box around all
      voxels that are not zero in some channel. With `nonzero` over the channel's voxels that are
      not zero, and the others stay zero: for images whose outside was set to zero.
    * `{scheme: fixed, mean, std}`: shifted and divided by the same numbers in every image, as
      photographs are for encoders trained on ImageNet.
    * `{scheme: rescale}`: smallest value to 0, largest to 1.
    * `{scheme: none}`: left alone.

    Args:
        keys: Of the images.
        schemes: One scheme a channel, or one for all.
        allow_missing_keys: Pass over keys that are not there.

    Attributes:
        copy: Leave the images that come in as they are; without, float32 images change in place.

    Raises:
        UsageError: If a scheme is unknown, or a number it needs is missing.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021, supplementary note 2.
    """

    def __init__(
        self,
        keys: KeysCollection,
        schemes: Sequence[Mapping[str, Any]],
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.copy = True
        self.schemes = tuple(_checked(scheme) for scheme in schemes)
        if not self.schemes:
            msg = "schemes must hold at least one scheme, got none."
            raise UsageError(msg)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Normalise the images of a case.

        Args:
            data: With (C, *spatial) images.

        Returns:
            The same with (C, *spatial) float32 images.

        Raises:
            UsageError: If there are neither one scheme nor as many as channels.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            if len(self.schemes) not in (1, len(image)):
                msg = (
                    f"schemes must be one or one a channel, got {len(self.schemes)} for"
                    f" {len(image)} channels."
                )
                raise UsageError(msg)
            schemes = self.schemes * len(image) if len(self.schemes) == 1 else self.schemes
            image = torch.as_tensor(image).to(torch.float32, copy=self.copy)
            plain = image.as_tensor() if hasattr(image, "as_tensor") else image
            where = _where(plain, schemes)
            for channel, scheme in zip(plain, schemes, strict=True):
                _normalize(channel, scheme, where)
            result[key] = image
        return result

    def pointwise(self) -> Callable[[int, torch.Tensor], torch.Tensor] | None:
        """Return what this does to a value of a channel wherever it lies.

        Returns:
            Takes the number of a channel and some of its values, gives new float32 values; None
            where a scheme asks for the whole image.
        """
        schemes = self.schemes
        if any(scheme["scheme"] not in _POINTWISE for scheme in schemes):
            return None

        def scale(channel: int, values: torch.Tensor) -> torch.Tensor:
            values = values.to(torch.float32, copy=True)
            _normalize(values, schemes[channel if len(schemes) > 1 else 0], {})
            return values

        return scale


def _checked(scheme: Mapping[str, Any]) -> dict[str, Any]:
    name = scheme.get("scheme")
    if name not in _NUMBERS:
        msg = f"scheme must be among {', '.join(_NUMBERS)}, got {name!r}."
        raise UsageError(msg)
    missing = [number for number in _NUMBERS[name] if scheme.get(number) is None]
    if missing:
        msg = f"scheme {name} must give {', '.join(_NUMBERS[name])}, got no {', '.join(missing)}."
        raise UsageError(msg)
    return dict(scheme)


Where = tuple[slice, ...] | torch.Tensor
"""The voxels that z-scores are taken of: a box or a mask."""


def _where(image: torch.Tensor, schemes: Sequence[Mapping[str, Any]]) -> dict[bool, Where]:
    """Return the voxels of each kind of z-score that is asked for, by `nonzero`."""
    wanted = {bool(s.get("nonzero")) for s in schemes if s["scheme"] == "zscore"}
    result: dict[bool, Where] = {}
    if False in wanted:
        result[False] = nonzero_box(image)
    if True in wanted:
        result[True] = _inside(image)
    return result


def _inside(image: torch.Tensor) -> torch.Tensor:
    """Return the mask of what is not zero in any channel, its holes filled."""
    filled = ndimage.binary_fill_holes((image != 0).any(dim=0).cpu().numpy())
    return torch.from_numpy(filled).to(image.device)


def nonzero_box(image: torch.Tensor) -> tuple[slice, ...]:
    """Return the box around what is not zero in some channel.

    Planes are looked at from each side until one holds something, so that hardly anything is read
    of an image that has values up to its border.

    Args:
        image: (C, *spatial).

    Returns:
        Voxels along each axis; all of them where everything is zero.
    """
    box: list[slice] = []
    for axis, extent in enumerate(image.shape[1:], start=1):
        inside = image
        for done, part in enumerate(box, start=1):
            inside = inside.narrow(done, part.start, part.stop - part.start)

        def is_empty(place: int, planes: torch.Tensor = inside, axis: int = axis) -> bool:
            return not bool(planes.select(axis, place).any())

        first = next((place for place in range(extent) if not is_empty(place)), None)
        if first is None:
            return tuple(slice(0, extent) for extent in image.shape[1:])
        last = next(place for place in reversed(range(extent)) if not is_empty(place))
        box.append(slice(first, last + 1))
    return tuple(box)


def _normalize(
    channel: torch.Tensor, scheme: Mapping[str, Any], where: Mapping[bool, Where]
) -> None:
    """Normalise one channel in place."""
    name = scheme["scheme"]
    if name == "ct":
        channel.clamp_(float(scheme["low"]), float(scheme["high"]))
        channel.sub_(float(scheme["mean"])).div_(max(float(scheme["std"]), SMALLEST_STD))
    elif name == "fixed":
        channel.sub_(float(scheme["mean"])).div_(max(float(scheme["std"]), SMALLEST_STD))
    elif name == "zscore":
        nonzero = bool(scheme.get("nonzero"))
        values = channel[where[nonzero]]
        if values.numel():
            mean, std = _mean_and_std(values)
            channel.sub_(mean).div_(std)
        if nonzero:
            channel.mul_(torch.as_tensor(where[True]))
    elif name == "rescale":
        low, high = float(channel.min()), float(channel.max())
        channel.sub_(low).div_(high - low if high > low else 1.0)


def _mean_and_std(values: torch.Tensor) -> tuple[float, float]:
    """Return mean and standard deviation; 1 for the latter where nothing varies."""
    std, mean = torch.std_mean(values, correction=0)
    return float(mean), float(std) if float(std) > SMALLEST_STD else 1.0
