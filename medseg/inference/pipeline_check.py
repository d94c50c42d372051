"""A stated pipeline, tried on a small image against the bundle it states."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medseg.bundle import Bundle
from medseg.bundle.build import InferenceParts
from medseg.bundle.runner.grid import Image
from medseg.bundle.runner.maps import (
    postprocessed as runner_postprocessed,
)
from medseg.bundle.runner.maps import (
    restored,
    window_starts,
    window_weights,
)
from medseg.bundle.runner.steps import preprocessed as runner_preprocessed
from medseg.inference.maps import WholeMaps
from medseg.inference.postprocess import postprocessed
from medseg.inference.preprocess import affine_of, preprocessed
from medseg.inference.restore import Meaning, Restoring, restore_mask
from medseg.inference.windows import windows_of
from medseg.volume import Segmentation, Source, Volume

VALUE_TOLERANCE = 1e-3
"""How far values may be apart, as a share of their range: float32 in another order of sums."""

GRID_TOLERANCE = 1e-6
LEAST_AGREEMENT = 0.9999

_TURN = np.array([[0, 0, 1.0], [-1.0, 0, 0], [0, -1.0, 0]])


def why_not_reproduced(
    document: Mapping[str, Any], bundle: Bundle, parts: InferenceParts
) -> str | None:
    """Say where the reference runner differs from medseg on a small image.

    The networks are left out, whose files are compared on their own: random class maps stand for
    theirs.

    Args:
        document: The pipeline.
        bundle: That it states.
        parts: Of the bundle.

    Returns:
        The reason, or None where nothing differs.
    """
    try:
        return _difference(document, bundle, parts)
    except Exception as error:  # noqa: BLE001  # transforms of a bundle can raise anything
        text = " ".join(str(error).split())[:200]
        return f"trial ended in {type(error).__name__}: {text}"


def _difference(document: Mapping[str, Any], bundle: Bundle, parts: InferenceParts) -> str | None:
    volume = trial_volume(document)
    image = preprocessed(volume, parts, is_ct=document["input"]["hounsfield"] is not None)
    source = Image(volume.array.astype(np.float32), volume.affine)
    found = runner_preprocessed(source, document["preprocessing"])
    if reason := _grids_differ(image, found):
        return reason
    if not _windows_agree(document, parts):
        return "windows lie elsewhere or have other weights"
    maps = np.random.default_rng(2).normal(size=(len(bundle.values), *found.shape))
    maps = maps.astype(np.float32)
    rules = None if bundle.restoring is None else Restoring(**bundle.restoring)
    meaning = Meaning(
        bundle.values,
        bundle.regions,
        document["decision"]["threshold"] or 0.0,
        document["maps"] == "logits",
        rules,
    )
    members = [WholeMaps(torch.from_numpy(maps), affine_of(image))]
    expected = restore_mask(members, volume.shape, volume.affine, meaning)
    mask = restored(maps, found, source, document)
    agreement = float((mask == expected).mean())
    if agreement < LEAST_AGREEMENT:
        return f"{100 * agreement:.2f} % of voxels get the same label when maps are restored"
    segmentation = Segmentation(expected, volume.affine, bundle.labels)
    expected = postprocessed(segmentation, bundle.postprocessing).array
    if (
        runner_postprocessed(segmentation.array.copy(), document["postprocessing"]) != expected
    ).any():
        return "postprocessing keeps other voxels"
    return None


def _grids_differ(image: Any, found: Image) -> str | None:
    if tuple(image.shape) != found.array.shape:
        return f"preprocessing gives {tuple(image.shape)}, its statement {found.array.shape}"
    expected = np.asarray(image.as_tensor().float())
    scale = max(1.0, float(np.ptp(expected)))
    apart = float(np.abs(expected - found.array).max()) / scale
    if not apart <= VALUE_TOLERANCE:
        return f"preprocessing gives values {apart:.3g} of their range apart from its statement"
    if not np.allclose(affine_of(image), found.affine, rtol=GRID_TOLERANCE, atol=GRID_TOLERANCE):
        return "preprocessing gives another grid than its statement"
    return None


def _windows_agree(document: Mapping[str, Any], parts: InferenceParts) -> bool:
    window = document["window"]
    shape = [2 * (size or 16) - size // 3 if size else 16 for size in window["size"]]
    inferer: Any = parts.inferer
    expected = windows_of(inferer, shape, torch.device("cpu"))
    starts = tuple(window_starts(expected.padded_shape, expected.size, window))
    weights = window_weights(expected.size, window["weights"])
    close = np.allclose(weights, expected.importance.numpy(), rtol=VALUE_TOLERANCE, atol=1e-7)
    return starts == expected.starts and bool(close)


def trial_volume(document: Mapping[str, Any]) -> Volume:
    """Return a small image for a pipeline: structures, noise, a border and a hole of zeros.

    Args:
        document: The pipeline.

    Returns:
        A volume that lies oblique and in another orientation than RAS, or a picture of 8 bits.
    """
    dims, channels = document["input"]["dims"], len(document["input"]["channels"])
    shape = (23, 19, 16) if dims == 3 else (37, 29)
    generator = np.random.default_rng(1)
    array = generator.uniform(20, 250, (channels, *shape))
    centre = tuple(slice(n // 3, n // 2) for n in shape)
    array[(slice(None), *centre)] += 4
    array[(slice(None), *(slice(n // 2, n // 2 + 2) for n in shape))] = 0
    border = np.ones(shape, bool)
    border[tuple(slice(2, n - 1) for n in shape)] = False
    array[:, border] = 0
    wanted = _wanted_spacing(document, dims)
    if document["input"]["hounsfield"] is not None:
        array = array * 12 - 1100
    if dims == 2:
        affine = np.diag([1.31 * wanted[0], 0.83 * wanted[1], 1.0])
        return Volume(array.clip(0, 255).astype(np.uint8), affine, Source(format="raster"))
    return Volume(np.rint(array).astype(np.float32), _oblique(wanted))


def _wanted_spacing(document: Mapping[str, Any], dims: int) -> list[float]:
    steps = [step for step in document["preprocessing"] if "spacing" in step]
    if not steps or steps[0].get("unit") == "px":
        return [1.0] * dims
    return [1.0 if one is None else float(one) for one in steps[0]["spacing"]]


def _oblique(wanted: list[float]) -> npt.NDArray[np.float64]:
    """Return an affine out of all planes, with spacings near those that are wanted."""
    turn = _TURN
    for axis, angle in enumerate((0.2, -0.15, 0.3)):
        rotation = np.eye(3)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        rotation[[i, j], [i, j]] = np.cos(angle)
        rotation[i, j], rotation[j, i] = -np.sin(angle), np.sin(angle)
        turn = rotation @ turn
    along = np.abs(_TURN).argmax(axis=0)
    spacing = [
        factor * wanted[world] for factor, world in zip((0.71, 1.43, 1.87), along, strict=True)
    ]
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    affine[:3, 3] = (-12.0, 30.0, 5.0)
    return affine.astype(np.float32).astype(np.float64)  # as files have it
