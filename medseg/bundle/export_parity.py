"""Whether an exported network answers as the network in torch does."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from medseg.errors import BundleError

Answer = Callable[[torch.Tensor], torch.Tensor]

RELATIVE_TOLERANCE = 5e-3
"""Largest difference of two outputs, as a share of the largest output (at least 1).

Measured in float32: ONNX Runtime 1e-5 and OpenVINO 8e-5 on the shipped bundles (64x64x48 and
40x56x40), 5e-5 and 1e-3 on an untrained network at 128x128x128: both sum the statistics of instance
normalisation over all voxels in one go, which torch does not. Arithmetic in bfloat16 comes to 2e-2,
which is not accepted.
"""

LEAST_AGREEMENT = 0.999
"""Share of voxels that must get the same label.

Outputs within the tolerance change a label only where two classes tie; an untrained network, whose
outputs are all alike, has more such voxels than a trained one.
"""

STANDARD_RANGE = (-3.0, 3.0)
"""Range of values of an image normalised to mean 0 and standard deviation 1."""

_SMOOTH = 8  # voxels of one blob
_SPREADS_IN_RANGE = 6  # standard deviations that span the range of values


@dataclass(frozen=True)
class Trial:
    """One input and what torch makes of it.

    Attributes:
        image: (B, C, *spatial) input.
        expected: (B, classes, *spatial) logits.
    """

    image: torch.Tensor
    expected: torch.Tensor


@dataclass(frozen=True)
class Parity:
    """How far two networks are apart.

    Attributes:
        max_abs_difference: Of the outputs.
        largest_output: Of the reference, without sign.
        label_agreement: Share of voxels with the same label, the smallest of all inputs.
        shapes: Of the inputs, (B, C, *spatial) each.
    """

    max_abs_difference: float
    largest_output: float
    label_agreement: float
    shapes: tuple[tuple[int, ...], ...]

    @property
    def tolerance(self) -> float:
        """Largest difference that is accepted."""
        return RELATIVE_TOLERANCE * max(1.0, self.largest_output)

    @property
    def holds(self) -> bool:
        """Whether the two give the same masks."""
        close = self.max_abs_difference <= self.tolerance
        return close and self.label_agreement >= LEAST_AGREEMENT

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {
            "reference": "torch float32 on the CPU",
            "max_abs_difference": self.max_abs_difference,
            "tolerance": self.tolerance,
            "largest_output": self.largest_output,
            "label_agreement": self.label_agreement,
            "least_label_agreement": LEAST_AGREEMENT,
            "inputs": sum(shape[0] for shape in self.shapes),
            "input_shapes": [list(shape) for shape in self.shapes],
        }


def random_image(
    shape: Sequence[int], seed: int, value_range: tuple[float, float] = STANDARD_RANGE
) -> torch.Tensor:
    """Return an image of blobs and noise, so that a network finds something in it.

    Args:
        shape: (C, *spatial).
        seed: Equal seeds give equal images.
        value_range: Smallest and largest value.

    Returns:
        (1, C, *spatial) float32 image within the range.
    """
    generator = torch.Generator().manual_seed(seed)
    coarse = [max(1, -(-size // _SMOOTH)) for size in shape[1:]]
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(coarse)]
    blobs = torch.randn((1, shape[0], *coarse), generator=generator)
    blobs = torch.nn.functional.interpolate(blobs, size=tuple(shape[1:]), mode=mode)
    noise = torch.randn((1, *shape), generator=generator)
    low, high = value_range
    values = (low + high) / 2 + (high - low) / _SPREADS_IN_RANGE * (blobs + 0.3 * noise)
    return values.clamp(low, high)


def make_trials(
    network: torch.nn.Module,
    shapes: Sequence[Sequence[int]],
    *,
    value_range: tuple[float, float] = STANDARD_RANGE,
) -> list[Trial]:
    """Run the reference network on random images, no two of them alike.

    Args:
        network: In evaluation mode, float32, on the CPU.
        shapes: Of the inputs, (B, C, *spatial) each.
        value_range: Of the images.

    Returns:
        One trial a shape.

    Raises:
        BundleError: If the network fails (`bad-config`), gives no single tensor of logits on the
            grid of the image (`bad-output`), or a value that is not finite (`non-finite-output`).
    """
    trials, seed = [], 0
    for batch, *shape in shapes:
        images = [random_image(shape, seed + sample, value_range) for sample in range(batch)]
        seed += batch
        inputs = torch.cat(images)
        trials.append(Trial(inputs, _reference(network, inputs)))
    return trials


def other_shape(
    network: torch.nn.Module, channels: int, shape: Sequence[int]
) -> tuple[int, ...] | None:
    """Find a second shape that a network takes, the smallest first.

    Args:
        network: In evaluation mode, on the CPU.
        channels: Of the image.
        shape: Spatial shape of its patch; voxels. Axes of one voxel stay so.

    Returns:
        A spatial shape, or None where the network takes no other.
    """
    axis = shape.index(max(shape))
    halved = tuple(max(1, size // 2) for size in shape)
    candidates = [halved]
    for numerator, denominator in ((1, 2), (3, 2), (2, 1)):
        changed = list(shape)
        changed[axis] = max(1, changed[axis] * numerator // denominator)
        candidates.append(tuple(changed))
    for candidate in candidates:
        if candidate == tuple(shape):
            continue
        try:
            _reference(network, random_image((channels, *candidate), 0))
        except BundleError:
            continue
        return candidate
    return None


def compare(answer: Answer, trials: Sequence[Trial], *, regions: bool = False) -> Parity:
    """Run an exported network on the inputs of the reference.

    Args:
        answer: Takes (B, C, *spatial), gives (B, classes, *spatial) logits.
        trials: As `make_trials` gives them.
        regions: Channels are regions, each on where its logit is above 0; not classes.

    Returns:
        How far the two are apart; infinitely, where an output is not finite or
        of another shape.
    """
    difference, largest, agreement = 0.0, 0.0, 1.0
    for trial in trials:
        found = answer(trial.image).float()
        largest = max(largest, *(abs(float(value)) for value in torch.aminmax(trial.expected)))
        if found.shape != trial.expected.shape:
            difference, agreement = math.inf, 0.0
            continue
        difference = max(difference, _largest_difference(found, trial.expected))
        same = (_labels(found, regions) == _labels(trial.expected, regions)).double().mean()
        agreement = min(agreement, float(same))
    return Parity(difference, largest, agreement, tuple(tuple(t.image.shape) for t in trials))


def _largest_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return it class by class: of a hundred classes a copy is large."""
    several = zip(found.flatten(0, 1), expected.flatten(0, 1), strict=True)
    apart = [float((one - other).abs_().max()) for one, other in several]
    return max(apart) if all(map(math.isfinite, apart)) else math.inf


def _labels(logits: torch.Tensor, regions: bool) -> torch.Tensor:
    return logits > 0 if regions else logits.argmax(dim=1)


def _reference(network: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    try:
        with torch.inference_mode():
            output = network(image)
    except Exception as error:  # a network can raise anything
        msg = f"network must take {tuple(image.shape)}, got {type(error).__name__}: {error}"
        raise BundleError(msg, code="bad-config") from error
    on_grid = isinstance(output, torch.Tensor) and (
        output.shape[:1] + output.shape[2:] == image.shape[:1] + image.shape[2:]
    )
    if not on_grid:
        got = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        msg = f"network must give one map a class on the grid of its input, got {got}."
        raise BundleError(msg, code="bad-output")
    if not torch.isfinite(output).all():
        msg = "network must give finite outputs, got NaN or infinity."
        raise BundleError(msg, code="non-finite-output")
    result: torch.Tensor = output.clone()
    return result
