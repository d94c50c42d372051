"""What a bundle takes: dimensions, channels and intensities of a volume, before any compute."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from monai.inferers import SliceInferer

from medseg.bundle import Bundle
from medseg.bundle.build import InferenceParts
from medseg.errors import InputError, Problem, UsageError
from medseg.io.hounsfield import why_not_hounsfield
from medseg.transforms import NormalizeChannelsd
from medseg.volume import Volume, size_text

_CONVOLUTIONS = (
    (2, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)),
    (3, (torch.nn.Conv3d, torch.nn.ConvTranspose3d)),
)
_EIGHT_BITS = 255


def spatial_dims(parts: InferenceParts) -> int | None:
    """Return whether a bundle segments 2D images or 3D volumes.

    The windows of its inferer say it; a `SliceInferer` gives a 2D network the slices of a volume.
    An inferer without windows is called with the whole image, in the dimensions of the network's
    convolutions.

    Args:
        parts: Of the bundle.

    Returns:
        2 or 3; None where neither tells.
    """
    if isinstance(parts.inferer, SliceInferer):
        return 3
    window: Any = getattr(parts.inferer, "roi_size", None)
    if isinstance(window, Sequence | torch.Size) and len(window) in (2, 3):
        return len(window)
    modules = list(parts.network.modules())
    found = {dims for dims, kinds in _CONVOLUTIONS if any(isinstance(m, kinds) for m in modules)}
    return found.pop() if len(found) == 1 else None


def has_fixed_scale(parts: InferenceParts) -> bool:
    """Return whether preprocessing scales intensities by fixed numbers.

    Args:
        parts: Of the bundle.

    Returns:
        Whether a channel has the scheme `fixed`.
    """
    steps = [step for step in parts.preprocessing if isinstance(step, NormalizeChannelsd)]
    return any(scheme["scheme"] == "fixed" for step in steps for scheme in step.schemes)


@dataclass(frozen=True)
class Intake:
    """The images that a bundle takes.

    Attributes:
        bundle: The bundle.
        dims: Spatial dimensions of its images; None where it does not tell.
        fixed_scale: Intensities are scaled by fixed numbers, not by those of each image.
    """

    bundle: Bundle
    dims: int | None
    fixed_scale: bool = False

    @property
    def is_ct(self) -> bool:
        """Whether it states for medseg that it takes Hounsfield units."""
        return not self.bundle.is_foreign and self.bundle.input_rule.modality == ("CT",)

    def taken(self, volume: Volume) -> Volume:
        """Return a volume as the bundle takes it.

        A grey picture gets three equal channels for a bundle of red, green and blue, and a colour
        picture whose three channels are equal in every pixel one channel for a bundle of one. Both
        are said in a warning of the source.

        Args:
            volume: Any; stays as it is.

        Returns:
            The volume itself, or one with its channels repeated or left out.

        Raises:
            InputError: If its dimensions (`wrong-dimensions`) or channels (`wrong-channels`) are
                others, it is no Hounsfield units for a CT bundle (`not-hu-like`), or no 8-bit
                colours for a bundle that scales them by fixed numbers (`more-than-8-bits`).
            UsageError: If it is no `Volume`.
        """
        if not isinstance(volume, Volume):  # a path or an array, when called by hand
            msg = (
                f"volume must be a medseg.Volume, got {type(volume).__name__}."
                " Read one with medseg.read(PATH)."
            )
            raise UsageError(msg)
        dims = len(volume.shape)
        if self.dims is not None and dims != self.dims:
            kinds = {2: "2D image", 3: "3D volume"}
            advice = (
                " Give it pictures, or a bundle for volumes to this one."
                if self.dims == 2
                else " Give it volumes, or a bundle for pictures to this one."
            )
            msg = (
                f"volume must be {self.dims}D for {self.bundle.name}, got a {kinds[dims]} of"
                f" {size_text(volume.shape)}.{advice}"
            )
            raise InputError(msg, code="wrong-dimensions")
        volume = self._with_its_channels(volume)
        if self.is_ct:
            _check_hounsfield(volume)
        return volume

    def _with_its_channels(self, volume: Volume) -> Volume:
        rule, array = self.bundle.input_rule, volume.array
        wanted = rule.channels
        if volume.is_2d and wanted == 1 and volume.channels == 3 and _is_grey(volume):
            text = "the colours are equal in every pixel: the image is taken for a grey one"
            return _said(replace(volume, array=array[:1]), "grey-in-colour", text)
        if volume.is_2d and volume.channels == 1 and rule.is_colour:
            text = f"the image is grey: it is used for each of the {wanted} colours"
            volume = replace(volume, array=np.repeat(array, wanted, axis=0))
            volume = _said(volume, "grey-image", text)
        if volume.channels != wanted:
            msg = (
                f"volume must have {wanted} channels for {self.bundle.name}, got {volume.channels}."
            )
            if volume.is_2d and wanted == 1:
                msg += " Convert the colour image to a grey one."
            raise InputError(msg, code="wrong-channels")
        if volume.is_2d and rule.is_colour and array.dtype != np.uint8:
            volume = self._with_its_scale(volume)
        return volume

    def _with_its_scale(self, volume: Volume) -> Volume:
        """Refuse, or warn of, a colour image whose values are not those of 8 bits."""
        largest = float(volume.array.max())
        if self.fixed_scale and (largest > _EIGHT_BITS or volume.array.dtype.kind == "f"):
            msg = (
                f"volume must have values of 8 bits for {self.bundle.name}, which scales colours"
                f" by fixed numbers, got {volume.array.dtype} up to {largest:g}."
                " Convert the image to 8 bits."
            )
            raise InputError(msg, code="more-than-8-bits")
        if largest > _EIGHT_BITS:
            text = f"the image has values up to {largest:g}, more than 8 bits"
            return _said(volume, "more-than-8-bits", text)
        return volume


def _is_grey(volume: Volume) -> bool:
    red, *others = volume.array
    return all(np.array_equal(red, other) for other in others)


def said(volume: Volume, problems: Sequence[Problem]) -> Volume:
    """Return a volume whose source tells of problems.

    Args:
        volume: Stays as it is.
        problems: To be added to those it has.
    """
    every = (*volume.source.problems, *problems)
    return replace(volume, source=replace(volume.source, problems=every))


def _said(volume: Volume, code: str, message: str) -> Volume:
    return said(volume, [Problem(code, message, "warning")])


def _check_hounsfield(volume: Volume) -> None:
    array = volume.array
    sample = array[(slice(None), *(slice(None, None, 4),) * len(volume.shape))]  # for a median
    reason = why_not_hounsfield(float(array.min()), float(np.median(sample)), float(array.max()))
    if reason:
        msg = f"volume must hold Hounsfield units for a CT bundle, got values of which {reason}."
        raise InputError(msg, code="not-hu-like")
