"""A bundle's way from an image to a mask as data: what an exported network needs around it."""

from collections.abc import Sequence
from typing import Any

from monai.inferers import SlidingWindowInferer
from monai.utils import ensure_tuple_rep

from medseg._version import __version__
from medseg.bundle import Bundle
from medseg.bundle.build import InferenceParts
from medseg.inference.inferers import EvenInferer, StreamingInferer
from medseg.inference.intake import Intake, has_fixed_scale, spatial_dims
from medseg.inference.pipeline_check import why_not_reproduced
from medseg.inference.pipeline_steps import Statement, coarse_rule, stated_steps
from medseg.inference.restore import Restoring
from medseg.inference.view import OUTSIDE_VOXELS
from medseg.io.hounsfield import AIR_HU, LARGEST_MEDIAN_HU, SMALLEST_MAXIMUM_HU
from medseg.volume import Label, mask_dtype

SCHEMA = 1


def pipeline_document(
    bundle: Bundle, parts: InferenceParts, networks: Sequence[Statement]
) -> dict[str, Any]:
    """State what is done before, around and after the networks of a bundle.

    What is stated is tried: a small image goes through the bundle's transforms and through the
    reference runner, and where the two differ the document says that it is not complete.

    Args:
        bundle: The bundle.
        parts: What it brings to inference; of several networks the first.
        networks: What is said of each network: its files, with `input_shape` and `dynamic_axes`.

    Returns:
        The document, see `docs/export.md`.
    """
    channels = bundle.input_rule.channels
    dims = spatial_dims(parts) or bundle.input_rule.dims
    intake = Intake(bundle, dims, has_fixed_scale(parts))
    steps, missing = stated_steps(parts.preprocessing, channels)
    if intake.is_ct:
        steps.insert(0, {"step": "clip", "low": float(AIR_HU), "high": None})
    window, faults = _window(parts.inferer, dims)
    missing += [*faults, *_of_pictures(steps, dims), *_of_ending(parts, dims)]
    missing += _of_files(networks, window)
    activated = parts.ending is not None and parts.ending.activated
    averaged = len(bundle.weight_files) > 1 or activated
    values = list(bundle.values)
    document = {
        "schema": SCHEMA,
        "complete": not missing,
        "missing": missing,
        "bundle": {
            "name": bundle.name,
            "version": bundle.version,
            "weights_sha256": bundle.weights_sha256(),
        },
        "medseg": __version__,
        "networks": list(networks),
        "input": _input(intake, dims),
        "preprocessing": steps,
        "window": window,
        "activation": "sigmoid" if bundle.regions else "softmax",
        "maps": "probabilities" if averaged else "logits",
        "restoring": _restoring(bundle),
        "decision": _decision(values, regions=bundle.regions, threshold=0.5 if averaged else 0.0),
        "postprocessing": _postprocessing(bundle),
        "mask": {"dtype": mask_dtype(max(values)).name},
        "labels": [_label(label) for label in bundle.labels],
    }
    if not missing and (reason := why_not_reproduced(document, bundle, parts)):
        document["missing"] = [{"key": "trial", "reason": reason}]
        document["complete"] = False
    return document


def _input(intake: Intake, dims: int) -> Statement:
    rule = intake.bundle.input_rule
    channels = rule.channel_rules or (("", ""),) * rule.channels
    hounsfield = {
        "largest_median": LARGEST_MEDIAN_HU,
        "smallest_maximum": SMALLEST_MAXIMUM_HU,
    }
    return {
        "dims": dims,
        "channels": [{"name": name, "modality": modality} for name, modality in channels],
        "modality": list(rule.modality),
        "hounsfield": hounsfield if intake.is_ct else None,
        "colour": rule.is_colour,
        "eight_bit": rule.is_colour and intake.fixed_scale,
    }


def _window(inferer: Any, dims: int) -> tuple[Statement, list[dict[str, str]]]:
    known = type(inferer) in (SlidingWindowInferer, StreamingInferer, EvenInferer)
    if not known or getattr(inferer, "with_coord", False):
        return {}, [{"key": "inferer", "reason": f"{type(inferer).__name__} has no statement"}]
    even = type(inferer) is EvenInferer
    sizes = ensure_tuple_rep(inferer.roi_size, dims)
    weights: Statement = {"kind": str(getattr(inferer.mode, "value", inferer.mode))}
    if weights["kind"] == "gaussian":
        weights |= {
            "sigma_scale": [float(one) for one in ensure_tuple_rep(inferer.sigma_scale, dims)],
            "centre": "voxel" if even else "middle",
            "cut": 4.0 if even else None,
            "half": 10.0 if even else None,
            "least": None if even else 1e-3,
        }
    return {
        "size": [int(size) if size and size > 0 else None for size in sizes],
        "overlap": [float(one) for one in ensure_tuple_rep(inferer.overlap, dims)],
        "placement": "even" if even else "stepwise",
        "weights": weights,
        "sums": "float16" if getattr(inferer, "half_sums", False) else "float32",
        "padding": {
            "mode": str(getattr(inferer.padding_mode, "value", inferer.padding_mode)),
            "value": float(inferer.cval),
        },
    }, []


def _of_pictures(steps: Sequence[Statement], dims: int) -> list[dict[str, str]]:
    if dims == 2 and any(step.get("unit") == "mm" or step["step"] == "spacing" for step in steps):
        return [{"key": "input", "reason": "the size of a picture's pixels has no statement"}]
    return []


def _of_ending(parts: InferenceParts, dims: int) -> list[dict[str, str]]:
    if parts.ending is not None and parts.ending.steps:
        names = ", ".join(type(step).__name__ for step in parts.ending.steps)
        return [{"key": "postprocessing", "reason": f"{names} have no statement"}]
    if parts.foreign and dims == 2:
        return [{"key": "input", "reason": "pictures with their columns first have no statement"}]
    return []


def _of_files(networks: Sequence[Statement], window: Statement) -> list[dict[str, str]]:
    """Say where a file does not take the windows."""
    found = []
    for network in networks:
        for name, file in network["files"].items():
            pairs = zip(file["input_shape"][2:], window.get("size", ()), strict=False)
            wrong = [
                axis
                for axis, (own, wanted) in enumerate(pairs, start=2)
                if own != wanted and str(axis) not in file["dynamic_axes"]
            ]
            if wrong:
                reason = f"{name} takes {file['input_shape']}, windows have {window['size']}"
                found.append({"key": "window", "reason": reason})
    return found


def _restoring(bundle: Bundle) -> Statement:
    rules = None if bundle.restoring is None else Restoring(**bundle.restoring)
    apart = rules is not None and rules.coarse_order == 0
    return {
        "interpolation": "linear",
        "outside_voxels": OUTSIDE_VOXELS,
        "cropped": rules is not None,
        "coarse": coarse_rule(rules.separate if rules is not None and apart else False),
        "values": "float16" if rules is not None and rules.half else "float32",
    }


def _decision(values: list[int], *, regions: bool, threshold: float) -> Statement:
    if regions:
        return {"rule": "threshold", "threshold": threshold, "values": values}
    return {"rule": "largest", "threshold": None, "values": values}


def _postprocessing(bundle: Bundle) -> list[Statement]:
    index_of = {label.name: label.index for label in bundle.labels}
    steps = []
    for step in bundle.postprocessing:
        names = [step["label"]] if "label" in step else step["labels"]
        steps.append({"keep": step["keep"], "values": [index_of[name] for name in names]})
    return steps


def _label(label: Label) -> Statement:
    return {
        "index": label.index,
        "name": label.name,
        "color": list(label.color),
        "values": list(label.inside),
        "code": None if label.code is None else label.code._asdict(),
        "category": None if label.category is None else label.category._asdict(),
    }
