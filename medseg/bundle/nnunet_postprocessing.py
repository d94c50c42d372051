"""What nnU-Net v2 found to be worth removing from finished masks, read as data."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.bundle.nnunet_model import NnunetModel
from medseg.errors import BundleError

NAME = "postprocessing.json"
KNOWN = "remove_all_but_largest_component_from_segmentation"


def read_postprocessing(path: Path, model: NnunetModel) -> list[dict[str, Any]]:
    """Read the steps of a `postprocessing.json`.

    Args:
        path: The file.
        model: The model whose masks it is for.

    Returns:
        Steps as `medseg.postprocessing` of a bundle's metadata states them; none where nnU-Net
        found nothing worth removing.

    Raises:
        BundleError: If it is none of nnU-Net v2's (`bad-plans`), or has a step other than keeping
            the largest component (`unsupported-nnunet`).
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        names, given = document["postprocessing_fns"], document["postprocessing_kwargs"]
        unknown = sorted({str(name) for name in names} - {KNOWN})
        if unknown:
            msg = f"postprocessing_fns must be {KNOWN}, got {', '.join(unknown)}."
            raise BundleError(msg, code="unsupported-nnunet")
        return [
            {"labels": _labels(one, model), "keep": "largest_component"}
            for _, one in zip(names, given, strict=True)
        ]
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"{NAME} must be that of nnU-Net v2, got {type(error).__name__}: {error}."
        raise BundleError(msg, code="bad-plans") from error


def _labels(given: Any, model: NnunetModel) -> list[str]:
    """Return the names of the labels whose values in masks a step takes together."""
    if int(given.get("background_label", 0)) != 0:
        msg = f"background_label must be 0, got {given['background_label']!r}"
        raise ValueError(msg)
    values = set(_values(given["labels_or_regions"]))
    named = {value: name for (name, _), value in zip(model.labels, model.paints, strict=True)}
    if not values <= set(named):
        msg = f"labels_or_regions must be among {sorted(named)}, got {sorted(values)}"
        raise ValueError(msg)
    return [name for value, name in named.items() if value in values]


def _values(given: Any) -> Sequence[int]:
    if isinstance(given, list):
        return [value for one in given for value in _values(one)]
    return [int(given)]
