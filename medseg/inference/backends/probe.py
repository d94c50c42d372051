"""Whether a way to run a network gives what torch gives in float32."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch

from medseg.bundle.export_parity import LEAST_AGREEMENT, Parity, Trial, compare, random_image
from medseg.errors import BundleError
from medseg.inference.backends.runners import Kind, Network

LEAST_FOREGROUND_DICE = 0.99
"""Dice of everything but background, against float32; a small structure weighs little above."""

FEWEST_FOREGROUND_VOXELS = 200
"""With fewer, a single voxel on the edge of a structure decides the Dice above."""

LARGEST_RELATIVE_DIFFERENCE = 0.1
"""Of outputs in half precision, as a share of the largest output: more is not rounding."""

LARGE_WINDOW = 1 << 18
"""Voxels of a window from which on parts of it are compared where whole ones were before."""

LARGEST_OUTPUT = 1 << 26
"""Values of the maps of a window beyond which not every voxel is compared: several are there at
once.
"""

MOST_PARTS = 3
"""Parts of windows that are looked at for one in which something is found."""

MOST_HALVINGS = 1 << 5
"""What the extents of a part are a multiple of, if those of the window are."""


@dataclass(frozen=True)
class Probe:
    """How one way to run a network did on a window.

    Attributes:
        kind: The way.
        seconds: Of one window, once warm; s. NaN where nothing was to be chosen.
        parity: Against float32 in torch; None for that itself.
        foreground_dice: Of all but background, against the same; NaN with too few voxels.
        label_dice: Mean of the Dice of each label, against the same; of those with enough voxels.
        label_voxels: What those labels have together.
        noise: The same as `parity` on a random image; None where it was not asked for.
    """

    kind: Kind
    seconds: float
    parity: Parity | None = None
    foreground_dice: float = math.nan
    label_dice: float = math.nan
    label_voxels: int = 0
    noise: Parity | None = None

    @property
    def reason_against(self) -> str | None:
        """Say why the way cannot be taken; None where nothing speaks against it."""
        if self.parity is None:
            return None
        exact = self.kind.precision == "fp32"
        for parity in (self.parity, self.noise):
            if parity is None:
                continue
            gap = parity.max_abs_difference
            rounding = LARGEST_RELATIVE_DIFFERENCE * max(1.0, parity.largest_output)
            if not gap <= (parity.tolerance if exact else rounding):
                return f"its outputs differ by {gap:.3g} from float32 in torch"
        agreement, dice = self.parity.label_agreement, self.foreground_dice
        if agreement < LEAST_AGREEMENT:
            return f"{agreement:.4%} of voxels get the label of float32"
        if not exact and dice < LEAST_FOREGROUND_DICE:
            return f"its structures have Dice {dice:.4f} with those of float32"
        return None

    @property
    def is_proven(self) -> bool:
        """Whether half precision was compared on structures, and not on background alone."""
        exact = self.parity is None or self.kind.precision == "fp32"
        return exact or not math.isnan(self.foreground_dice)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document."""
        parity = self.parity
        return {
            "backend": self.kind.library,
            "precision": self.kind.precision,
            "window_seconds": None if math.isnan(self.seconds) else self.seconds,
            "max_difference": None if parity is None else parity.max_abs_difference,
            "largest_output": None if parity is None else parity.largest_output,
            "label_agreement": None if parity is None else parity.label_agreement,
            "foreground_dice": None if math.isnan(self.foreground_dice) else self.foreground_dice,
            "label_dice": None if math.isnan(self.label_dice) else self.label_dice,
        }


@dataclass(frozen=True)
class Demand:
    """What is asked of half precision, or of any library, beyond what every probe asks.

    Attributes:
        agreement: Share of voxels that must get the label of float32, of any library.
        label_dice: Mean Dice of the labels with those of float32, of half precision.
        voxels: That these labels must have together for it to be known.
    """

    agreement: float = 0.0
    label_dice: float = 0.0
    voxels: int = 0

    def is_proven(self, probe: Probe) -> bool:
        """Whether enough was found in the window to judge a way by.

        Args:
            probe: How it did.
        """
        exact = probe.kind.precision == "fp32"
        return exact or (probe.is_proven and probe.label_voxels >= self.voxels)

    def reason_against(self, probe: Probe) -> str | None:
        """Say why a way is not good enough; None where it is.

        Args:
            probe: How it did.
        """
        parity = probe.parity
        if parity is not None and parity.label_agreement < self.agreement:
            return f"{parity.label_agreement:.4%} of voxels get the label of float32"
        if probe.kind.precision != "fp32" and probe.label_dice < self.label_dice:
            return f"its labels have a mean Dice of {probe.label_dice:.4f} with those of float32"
        return None


class Examiner:
    """Compares ways to run a network with the reference.

    Args:
        reference: Torch in float32; what it returns stays as it is when it runs again.
        windows: (1, C, *window) of one image; the first in which something is found is used.
        regions: Channels are regions, on where their logit is above 0; not classes.
    """

    def __init__(
        self, reference: Network, windows: Sequence[torch.Tensor], *, regions: bool
    ) -> None:
        self.reference = reference
        self.regions = regions
        self.trial = self._tried(windows[0])
        for window in windows[1:]:
            if _found(self.trial.expected, regions) >= FEWEST_FOREGROUND_VOXELS:
                break
            other = self._tried(window)
            if _found(other.expected, regions) >= FEWEST_FOREGROUND_VOXELS:
                self.trial = other
        self._noise: Trial | None = None

    def examined(self, kind: Kind, network: Network, *, converted: bool) -> Probe:
        """Run a network as the reference was run.

        Args:
            kind: The way it is run.
            network: Ready to run.
            converted: It was converted for this way: traced with one input, it may have lost
                a branch that another input takes, so that it gets a second one.

        Returns:
            How it did, without the time.
        """
        found = _kept(output_of(network, self.trial.image))
        parity = compare(lambda _: found, [self.trial], regions=self.regions)
        dice = foreground_dice(found, self.trial.expected, regions=self.regions)
        by_label, voxels = label_dice(found, self.trial.expected, regions=self.regions)
        voxels = voxels * self.trial.image[0, 0].numel() // found[0, 0].numel()
        noise = None
        if converted:
            noise = compare(
                lambda window: _kept(output_of(network, window)), [self.noise], regions=self.regions
            )
        return Probe(kind, math.nan, parity, dice, by_label, voxels, noise)

    @property
    def noise(self) -> Trial:
        """A random image and what the reference makes of it."""
        if self._noise is None:
            image = random_image(self.trial.image.shape[1:], 0).to(self.trial.image.device)
            self._noise = self._tried(image)
        return self._noise

    def _tried(self, window: torch.Tensor) -> Trial:
        return Trial(window, _kept(output_of(self.reference, window)))


def _kept(output: torch.Tensor) -> torch.Tensor:
    """Return what is compared of the maps of a window: of many classes every other voxel."""
    if output.numel() <= LARGEST_OUTPUT:
        return output
    every_other = [slice(None, None, 2)] * (output.ndim - 2)
    return output[:, :, *every_other].contiguous()


def parts_of(windows: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return parts of large windows, half as long, in which something is likely to be found.

    Args:
        windows: (1, C, *window) each.

    Returns:
        (1, C, *part), those first in which values vary most; none where windows are small. The
        extents of a part can be halved as often as those of the window, up to five times: as often
        as those of U-Nets are.
    """
    size = tuple(windows[0].shape[2:])
    steps = [min(n & -n, MOST_HALVINGS) for n in size]
    part = tuple(math.ceil(n / 2 / step) * step for n, step in zip(size, steps, strict=True))
    if math.prod(size) < LARGE_WINDOW or 2 * math.prod(part) > math.prod(size):
        return []
    starts = [{0, (n - m) // 2, n - m} for n, m in zip(size, part, strict=True)]
    several = []
    for window, place in product(windows, product(*starts)):
        spans = [slice(first, first + n) for first, n in zip(place, part, strict=True)]
        several.append(window[:, :, *spans])
    several.sort(key=lambda one: -float(one.float().std(correction=0)))
    return [one.contiguous() for one in several[:MOST_PARTS]]


def output_of(network: Network, window: torch.Tensor) -> torch.Tensor:
    """Run a network on a window and wait for it.

    Args:
        network: Ready to run.
        window: (1, C, *window).

    Returns:
        (1, classes, *window) float32; valid until the network's next call.

    Raises:
        BundleError: If it gives no single tensor (`bad-output`).
    """
    with torch.inference_mode():
        output: Any = network(window)
    if not isinstance(output, torch.Tensor):
        msg = f"network must return one tensor of class maps, got {type(output).__name__}."
        raise BundleError(msg, code="bad-output")
    result: torch.Tensor = output.float()
    if result.device.type == "cuda":
        torch.cuda.synchronize(result.device)
    return result


def foreground_dice(found: torch.Tensor, expected: torch.Tensor, *, regions: bool) -> float:
    """Return the Dice of all that is not background.

    Args:
        found: (B, classes, *spatial) logits.
        expected: The same, of the reference.
        regions: Channels are regions.

    Returns:
        Dice; NaN where there is next to nothing.
    """
    if regions:
        a, b = found > 0, expected > 0
        both = a & b
    else:
        labels = found.argmax(dim=1), expected.argmax(dim=1)
        a, b = (one > 0 for one in labels)
        both = a & b & (labels[0] == labels[1])
    total = int(a.sum()) + int(b.sum())
    return 2 * int(both.sum()) / total if total >= 2 * FEWEST_FOREGROUND_VOXELS else math.nan


def label_dice(found: torch.Tensor, expected: torch.Tensor, *, regions: bool) -> tuple[float, int]:
    """Return the mean of the Dice of each label but background, and how many voxels that is of.

    Args:
        found: (B, classes, *spatial) logits.
        expected: The same, of the reference.
        regions: Channels are regions.

    Returns:
        Mean over the labels that have enough voxels, NaN where none has; and voxels of those
        labels, the mean of both.
    """
    if regions:
        pairs = [(found[:, n] > 0, expected[:, n] > 0) for n in range(expected.shape[1])]
        both = [int((a & b).sum()) for a, b in pairs]
        sizes = [int(a.sum()) + int(b.sum()) for a, b in pairs]
    else:
        labels = [one.argmax(dim=1).flatten() for one in (found, expected)]
        count = expected.shape[1]
        found_sizes, expected_sizes = (torch.bincount(one, minlength=count) for one in labels)
        sizes = (found_sizes + expected_sizes)[1:].tolist()
        same = labels[0][labels[0] == labels[1]]
        both = torch.bincount(same, minlength=count)[1:].tolist()
    least = 2 * FEWEST_FOREGROUND_VOXELS
    dice = [2 * n / size for n, size in zip(both, sizes, strict=True) if size >= least]
    voxels = sum(size for size in sizes if size >= least) // 2
    return (sum(dice) / len(dice) if dice else math.nan), voxels


def _found(maps: torch.Tensor, regions: bool) -> int:
    return int((maps > 0).sum() if regions else (maps.argmax(dim=1) > 0).sum())
