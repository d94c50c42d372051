"""What bundles of MONAI's model zoo, which know nothing of medseg, say of themselves."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from medseg.bundle.check.configs import Workflow
from medseg.bundle.check.documents import get, is_expression, nodes_of, references_of
from medseg.bundle.check.files import SCRIPT, WEIGHTS, weight_names
from medseg.bundle.overrides import merge_configs
from medseg.errors import BundleError

SEGMENTATION = ("segmentation", "labels", "label", "mask")
"""Formats of the output of networks that segment."""

KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("detection", ("detection", "detector", "boxes", "bounding box", "retinanet")),
    ("registration", ("registration", "deformation", "displacement", "ddf")),
    ("generation", ("generation", "generative", "generator", "synthesis", "diffusion", "latent",
                    "autoencoder", "gan", "super-resolution", "reconstruction")),
    ("classification", ("classification", "classifier", "probabilities", "classes", "one_hot",
                        "grading")),
    ("landmarks", ("landmark", "keypoint", "coordinates")),
)  # fmt: skip
"""Kinds of tasks, and words of metadata that tell them."""

IMAGES = ("image", "segmentation", "")
"""Types of the output of networks that segment; other tasks return objects, arrays, a number."""

MODALITIES = {"CT": "CT", "MR": "MR", "MRI": "MR", "PT": "PT", "PET": "PT"}
"""Modalities as the zoo writes them, to DICOM's; of others every volume may be taken."""

POSTPROCESSING = "postprocessing"

LIBRARIES = ("monai", "medseg", "torch", "torchvision")
"""Packages whose networks are not a bundle's own."""

PROMPTED = ("Guidance", "ClickSignal", "VistaPreTransform")
"""Parts of the names of transforms that read clicks or prompts beside the image."""


def is_foreign(metadata: Mapping[str, Any]) -> bool:
    """Say whether a bundle states nothing for medseg, so that its own configs decide.

    Args:
        metadata: Content of metadata.json.
    """
    return "medseg" not in metadata


def other_task(metadata: Mapping[str, Any]) -> str:
    """Say why a bundle does not segment.

    Args:
        metadata: Content of metadata.json.

    Returns:
        What it does instead; empty for a bundle that segments.
    """
    formats = metadata.get("network_data_format")
    if not isinstance(formats, dict) or not is_foreign(metadata):
        return ""
    pred, image = get(formats, "outputs#pred"), get(formats, "inputs#image")
    if not isinstance(pred, dict) or not isinstance(image, dict):
        takes, gives = (", ".join(formats.get(s) or ["nothing"]) for s in ("inputs", "outputs"))
        return f"{_kind(metadata, {})}: it takes {takes} and gives {gives}"
    stated, kind = str(pred.get("format", "")).lower(), str(pred.get("type", "")).lower()
    further = [name for name in formats["inputs"] if name != "image"]
    if further:
        return f"{_kind(metadata, pred)}: beside the image it takes {', '.join(further)}"
    if _is_a_row(pred.get("spatial_shape")) and not _is_a_row(image.get("spatial_shape")):
        return f"{_kind(metadata, pred)}: its output is a row of numbers, and no image"
    segments = stated in SEGMENTATION or (not stated and kind in IMAGES)
    if segments or (kind in IMAGES and _kind(metadata, pred) == "another task"):
        return ""
    what = " of ".join(filter(None, (stated, kind)))
    return f"{_kind(metadata, pred)}: its output is {what}"


def _is_a_row(shape: Any) -> bool:
    return isinstance(shape, list) and 1 in shape


def other_input(config: Mapping[str, Any]) -> str:
    """Say what a bundle's preprocessing reads beside, or in place of, the image.

    Metadata name one image, and only the steps tell that it goes with clicks or is put together
    from several files.

    Args:
        config: Merged configs of inference.

    Returns:
        What it reads; empty for one that reads the image alone.
    """
    for _, step in nodes_of(_followed(config, _listed(config, config.get("preprocessing")))):
        name = str(step.get("_target_", "")).rpartition(".")[2] if isinstance(step, dict) else ""
        if any(sign in name for sign in PROMPTED):
            return f"annotation: {name} of its preprocessing reads clicks or prompts"
        keys = step.get("keys") if name == "LoadImaged" else None
        names = [keys] if isinstance(keys, str) else keys
        if isinstance(names, list) and "image" not in names and all(_plain(one) for one in names):
            return f"segmentation of several images: its preprocessing reads {', '.join(names)}"
    return ""


def _plain(key: Any) -> bool:
    return isinstance(key, str) and key[:1] not in ("$", "@", "%")


def _listed(config: Mapping[str, Any], value: Any) -> Any:
    """Return a part of the configs, and of an expression the parts that it refers to."""
    if isinstance(value, dict):
        return {key: _listed(config, one) for key, one in value.items()}
    if is_expression(value):
        return [get(config, key) for key in references_of(value)]
    return value


def require_segmentation(
    name: str, metadata: Mapping[str, Any], files: Sequence[Path] = ()
) -> None:
    """Raise unless a bundle segments an image.

    Args:
        name: Of the bundle.
        metadata: Content of metadata.json.
        files: Config files of inference, in loading order; left out, metadata alone are asked.

    Raises:
        BundleError: If it has another task (`other-task`), or a file does not parse
            (`bad-config`).
    """
    reason = other_task(metadata)
    if not reason and files and is_foreign(metadata):
        reason = other_input(merge_configs(files))
    if reason:
        msg = (
            f"bundle must segment images, got {name}, whose task is {reason}."
            " Run it with python -m monai.bundle run."
        )
        raise BundleError(msg, code="other-task")


def _kind(metadata: Mapping[str, Any], pred: Mapping[str, Any]) -> str:
    """Return the kind of task that the words of the output, then of the title, tell."""
    texts = [
        f"{pred.get('format', '')} {pred.get('type', '')}",
        f"{metadata.get('task', '')} {metadata.get('name', '')}",
        str(metadata.get("description", "")),
    ]
    for text in texts:
        words = text.lower().replace("_", " ") + " " + text.lower()
        if "segment" in words:
            continue
        for kind, signs in KINDS:
            if any(sign in words for sign in signs):
                return kind
    return "another task"


def channel_names(pred: Mapping[str, Any]) -> dict[int, str]:
    """Return the name of each output channel.

    Args:
        pred: `network_data_format#outputs#pred` of the metadata.

    Returns:
        Channel to name, from `channel_def`, or as some bundles call it, `label_def`; where both
        are left out, numbers.

    Raises:
        KeyError: If neither names nor their number are stated.
    """
    if named := pred.get("channel_def") or pred.get("label_def"):
        return {int(channel): str(name) for channel, name in named.items()}
    count = int(pred["num_channels"])
    return {i: f"class {i}" if i or count == 1 else "background" for i in range(count)}


def modalities_of(image: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the DICOM modalities of the images that a bundle takes.

    Args:
        image: `network_data_format#inputs#image` of the metadata.

    Returns:
        One at most; none where the metadata state none that is known.
    """
    known = MODALITIES.get(str(image.get("modality", "")).strip().upper())
    return (known,) if known else ()


def activation_of(files: Sequence[Path]) -> str:
    """Return whether the channels of a bundle are classes or regions that may overlap.

    Args:
        files: Config files of inference, in loading order.

    Returns:
        `sigmoid` where the bundle's postprocessing passes each channel through a sigmoid, or
        compares it with a threshold without an argmax; else `softmax`.

    Raises:
        BundleError: If a file does not parse (`bad-config`).
    """
    config = merge_configs(files)
    is_sigmoid = False
    for _, step in nodes_of(_followed(config, config.get(POSTPROCESSING))):
        name = str(step.get("_target_", "")).rpartition(".")[2] if isinstance(step, dict) else ""
        if name.startswith("Activations"):
            is_sigmoid |= _true(step.get("sigmoid"))
        if name.startswith("AsDiscrete"):
            if _true(step.get("argmax")):
                return "softmax"
            is_sigmoid |= step.get("threshold") is not None
    return "sigmoid" if is_sigmoid else "softmax"


def weights_of(files: Sequence[Path]) -> str:
    """Return the weight file that a bundle's configs load, or that stands in for its own code.

    Args:
        files: Config files of inference, in loading order.

    Returns:
        File below the bundle's folder; that of all bundles where the configs do not tell, or
        name one elsewhere. TorchScript for a network whose code is the bundle's own: it needs no
        such code.

    Raises:
        BundleError: If a file does not parse (`bad-config`).
    """
    workflow = Workflow("inference", tuple(file.name for file in files), merge_configs(files))
    if has_own_network(workflow.content):
        return SCRIPT
    (name,) = weight_names(workflow, {})
    return WEIGHTS if ".." in PurePosixPath(name).parts else name


def has_own_network(config: Mapping[str, Any]) -> bool:
    """Say whether a bundle brings the code of its network.

    Args:
        config: Merged configs of inference.
    """
    target = str(get(config, "network_def#_target_", ""))
    return "." in target and target.partition(".")[0] not in LIBRARIES


def _true(value: Any) -> bool:
    return value is True or (isinstance(value, list) and True in value)


def _followed(config: Mapping[str, Any], value: Any, depth: int = 0) -> Any:
    """Return a part of the configs with what it refers to in place of the references."""
    if depth > 20:  # a circle, which is said when the part is built
        return None
    if isinstance(value, dict):
        return {key: _followed(config, one, depth + 1) for key, one in value.items()}
    if isinstance(value, list):
        return [_followed(config, one, depth + 1) for one in value]
    if isinstance(value, str) and value[:1] in ("@", "%"):
        return _followed(config, get(config, value[1:].replace("::", "#")), depth + 1)
    return value
