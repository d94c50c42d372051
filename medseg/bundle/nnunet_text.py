"""The files of a bundle made of an nnU-Net v2 model: configs, metadata, card."""

from collections.abc import Mapping
from typing import Any

from medseg._version import __version__
from medseg.bundle.nnunet_model import REORIENTING, NnunetModel
from medseg.bundle.nnunet_weights import NnunetWeights
from medseg.bundle.spec import BundleSpec
from medseg.bundle.write import metadata
from medseg.bundle.yaml_text import PATHS, flow, inference_text

PREVIOUS = "previous"
"""Folder in a bundle of a cascade that holds the bundle of its first stage."""

SOURCE = "https://github.com/MIC-DKFZ/nnUNet"


def orientation_of(model: NnunetModel, orientation: str) -> str:
    """Return the orientation that images are turned to.

    Args:
        model: The model.
        orientation: Three letters such as `RAS`, or empty for that of nnU-Net's reader.

    Returns:
        Three letters; empty where images stay as their files have them.
    """
    if model.dims == 2:
        return ""
    return orientation or ("RAS" if model.reader == REORIENTING else "")


def nnunet_spec(model: NnunetModel, weights: NnunetWeights, name: str) -> BundleSpec:
    """Return what medseg states of every bundle, of this one.

    Args:
        model: The model.
        weights: Its network.
        name: Of the bundle.

    Returns:
        What is stated; values of regions in masks are those of `model.paints`.
    """
    spacing = model.by_axis(model.spacing_mm, None)
    return BundleSpec(
        name=name,
        task=f"segmentation of {', '.join(label for label, _ in model.labels)}",
        dataset=model.dataset,
        image_channels=list(zip(model.channels, model.modalities, strict=True)),
        labels=model.labels,
        spacing=[1.0 if value is None else value for value in spacing],
        patch_size=model.by_axis(model.patch_size, 1),
        batch_size=1,
        network_def=weights.network_def,
        schemes=model.schemes,
        activation="sigmoid" if model.regions else "softmax",
        in_pixels=model.dims == 2,
    )


def nnunet_metadata(model: NnunetModel, weights: NnunetWeights, spec: BundleSpec) -> dict[str, Any]:
    """Return `metadata.json`.

    Args:
        model: The model.
        weights: Its network.
        spec: What is stated of every bundle.

    Returns:
        The document.
    """
    document = metadata(spec)
    own: dict[str, Any] = document["medseg"]
    del own["train_command"]
    own["mirror_axes"] = list(weights.mirror_axes)
    own["restoring"] = restoring_of(model)
    for entries, key in ((own["labels"], "value"), (own.get("regions", []), "paints")):
        for entry, value in zip(entries, model.paints, strict=False):
            entry[key] = value
    own["imported_from"] = {
        "framework": "nnU-Net v2",
        "dataset": model.dataset,
        "configuration": model.configuration,
        "trainer": model.trainer,
        "plans": model.plans,
        "folds": list(weights.folds),
    }
    _state_previous_stage(document, model)
    document |= {
        "changelog": {document["version"]: "imported from nnU-Net v2"},
        "description": (
            f"nnU-Net v2, {model.configuration}, {_folds(weights)}, trained on {model.dataset}"
        ),
        "copyright": "of the one who trained it",
        "intended_use": "Research; not a medical device",
    }
    return document


def _state_previous_stage(document: dict[str, Any], model: NnunetModel) -> None:
    """Say that the network gets more channels than the image has."""
    if not model.previous:
        return
    image = document["network_data_format"]["inputs"]["image"]
    for value in model.mask_channels:
        image["channel_def"][str(image["num_channels"])] = f"{value} in the mask before"
        image["num_channels"] += 1
    document["medseg"]["previous_stage"] = {
        "folder": PREVIOUS,
        "labels": list(model.mask_channels),
    }


def restoring_of(model: NnunetModel) -> dict[str, Any]:
    """Return the rules by which class maps come back to the grid of the file.

    Args:
        model: The model.

    Returns:
        Arguments of `medseg.inference.restore.Restoring`.
    """
    return {
        "coarse_order": model.logits.coarse_order,
        "separate": model.logits.separate,
        "half": True,
    }


def nnunet_common_text(model: NnunetModel, spec: BundleSpec, orientation: str) -> str:
    """Return `common.yaml`.

    Args:
        model: The model.
        spec: What is stated of every bundle.
        orientation: Three letters that images are turned to, or empty.

    Returns:
        YAML.
    """
    first = "0 background, " if not model.regions else "regions that may overlap: "
    names = first + ", ".join(
        f"{value} {label}" for (label, _), value in zip(model.labels, model.paints, strict=True)
    )
    network = "\n".join(f"  {key}: {flow(value)}" for key, value in spec.network_def.items())
    turned, spacing, resampled, paths = "", "", "", PATHS
    staged, masked = _cascade_steps(model)
    if orientation:
        turned = (
            f"- {{_target_: Orientationd, keys: image, axcodes: {orientation}, labels: null}}\n"
        )
    if model.dims == 3:
        axes = f"after reorientation to {orientation}" if orientation else "axes as in the file"
        stated = flow(model.by_axis(model.spacing_mm, None))
        spacing = f"spacing_mm: {stated}   # {axes}; null: that of the image\n"
        image = model.image
        resampled = f"""\
- _target_: medseg.transforms.NnunetResampled
  keys: image
  spacing_mm: '@spacing_mm'
  order: {image.order}
  coarse_order: {image.coarse_order}
  separate: {flow(image.separate)}
"""
    if model.previous:  # a process that is forked off cannot use a GPU
        paths = PATHS.replace("num_workers: 1", "num_workers: 0")
    return f"""\
# What inference must know of a network trained by nnU-Net v2, stated once.
# Loaded first:  --config_file "['configs/common.yaml','configs/inference.yaml']"

{paths}

# --- the contract between data and network (units in the name) ---
num_classes: {spec.outputs}                # {names}
{spacing}patch_size: {flow(list(spec.patch_size))}

network_def:
{network}
network: $@network_def.to(@device)

preprocessing_transforms:
- {{_target_: LoadImaged, keys: image, reader: {{_target_: medseg.transforms.ImageReader, channels: {spec.channels}}}}}
- {{_target_: EnsureChannelFirstd, keys: image}}
{turned}- {{_target_: medseg.transforms.CropNonzerod, keys: image}}
{staged}- _target_: medseg.transforms.NormalizeChannelsd
  keys: image
  schemes: {flow([dict(scheme) for scheme in spec.schemes])}
{resampled}{masked}- {{_target_: EnsureTyped, keys: image, dtype: float32}}
preprocessing: {{_target_: Compose, transforms: '@preprocessing_transforms'}}

inferer: {{_target_: medseg.inference.EvenInferer, roi_size: '@patch_size', sw_batch_size: 1, overlap: 0.5, half_sums: true}}
checkpoint: {{_target_: CheckpointLoader, load_path: '@ckpt_path', load_dict: {{model: '@network'}}, map_location: '@device'}}
"""


def _cascade_steps(model: NnunetModel) -> tuple[str, str]:
    """Return the steps that run the stage before, and that add its mask; empty without one."""
    if not model.previous:
        return "", ""
    path = f"$@bundle_root + '/{PREVIOUS}'"
    order = [model.axes.index(axis) for axis in range(len(model.axes))]
    return (
        f"""\
- _target_: medseg.inference.PreviousStaged
  keys: image
  bundle: {path}
  device: '@device'
""",
        f"""\
- _target_: medseg.transforms.AddMaskChannelsd
  keys: image
  mask_key: previous
  labels: {flow(list(model.mask_channels))}
  axes: {flow(order)}   # of the image, in the order of nnU-Net's
  separate: {flow(model.mask.separate)}
""",
    )


def nnunet_inference_text(model: NnunetModel, spec: BundleSpec) -> str:
    """Return `inference.yaml`, an overlay on `common.yaml`.

    Args:
        model: The model.
        spec: What is stated of every bundle.

    Returns:
        YAML.
    """
    text = inference_text(spec)
    head, rest = text.split("keys: [image]\ntypes: [float32]\n")
    wanted = list(model.paints) if model.regions else [0, *model.paints]
    old = list(spec.paints) if model.regions else [0, *spec.paints]
    rules = flow(restoring_of(model))
    mask = f"values: {flow(wanted)}, regions: {flow(model.regions)}, restoring: {rules}"
    return head + rest.replace(f"values: {flow(old)}, regions: {flow(model.regions)}", mask)


def nnunet_card(
    model: NnunetModel, weights: NnunetWeights, spec: BundleSpec, warnings: Mapping[str, str]
) -> str:
    """Return the card: what was imported, and what it claims.

    Args:
        model: The model.
        weights: Its network.
        spec: What is stated of every bundle.
        warnings: Code and text of what the import could not take over.

    Returns:
        Markdown.
    """
    rows = "\n".join(
        f"| {value} | {name} | {', '.join(map(str, values))} |"
        for (name, values), value in zip(model.labels, model.paints, strict=True)
    )
    channels = ", ".join(f"{n} ({m or 'any modality'})" for n, m in spec.image_channels)
    patch = " x ".join(str(extent) for extent in spec.patch_size)
    left_out = "".join(f"\nNot taken over: {text}.\n" for text in warnings.values())
    trainer = f", by {model.trainer}" if model.trainer else ""
    return f"""\
# {spec.name}

{spec.task[:1].upper()}{spec.task[1:]}.

Imported by medseg {__version__} from nnU-Net v2 ({SOURCE}): {model.dataset},
{model.configuration}, {_folds(weights)}{trainer}. It needs no nnU-Net to run.

This card claims no score: results are those of the model that was imported.

**What it is not for:** images of other regions, modalities or contrast than those it was trained
on, and diagnosis. It is not a medical device.

Image channels: {channels}.
Network: {weights.network_def["_target_"].rpartition(".")[2]}, windows of {patch} voxels.
{left_out}
| value in masks | label | values in label files |
|---|---|---|
{rows}

```bash
medseg segment IMAGES -b {spec.name} -o OUT
```

The same with MONAI alone, from this folder, of the images in `DIR/imagesTs`:

```bash
python -m monai.bundle run --config_file "['configs/common.yaml','configs/inference.yaml']" --dataset_dir DIR
```
"""


def _folds(weights: NnunetWeights) -> str:
    word = "fold" if len(weights.folds) == 1 else "mean of the logits of folds"
    return f"{word} {', '.join(weights.folds)}"
