"""Write a trainable bundle: configs, metadata, card."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from medseg._version import __version__
from medseg.bundle import yaml_text
from medseg.bundle.spec import BundleSpec
from medseg.errors import OutputError
from medseg.io.atomic import atomic_folder, write_json, write_text

SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
FIRST_VERSION = "0.1.0"
NNUNET = (
    "F. Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical"
    " image segmentation, Nature Methods 18, 203-211 (2021)"
)
_MODALITY_NAMES = {"CT": "CT", "MR": "MR", "PT": "PT", "US": "US"}


def write_bundle(
    spec: BundleSpec,
    folder: Path,
    *,
    plan: Mapping[str, Any],
    splits: Mapping[str, Any] | None,
    overwrite: bool = False,
) -> Path:
    """Write a bundle as one folder, whole or not at all.

    Args:
        spec: What it states.
        folder: Where it goes.
        plan: Document for `configs/plan.json`.
        splits: Document for `configs/splits.json`; None where folds are dealt later.
        overwrite: Replace a bundle that is there, its weights and logs included.

    Returns:
        The folder.

    Raises:
        OutputError: If something is there already (`output-exists`), or writing fails.
    """
    folder = folder.absolute()
    with new_bundle_folder(folder, overwrite=overwrite) as partial:
        configs = partial / "configs"
        texts = {
            "common": yaml_text.common_text(spec),
            "train": yaml_text.train_text(spec),
            "evaluate": yaml_text.evaluate_text(spec),
            "inference": yaml_text.inference_text(spec),
            "multi_gpu_train": yaml_text.several_text(spec),
        }
        for name, text in texts.items():
            write_text(configs / f"{name}.yaml", text)
        write_json(configs / "metadata.json", metadata(spec))
        write_json(configs / "plan.json", dict(plan))
        if splits is not None:
            write_json(configs / "splits.json", dict(splits))
        write_text(partial / "docs" / "README.md", card(spec))
        write_text(partial / "LICENSE", _licence())
        (partial / "models").mkdir()
    return folder


@contextmanager
def new_bundle_folder(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a folder to write a bundle into, which takes its place whole or not at all.

    Args:
        folder: Where the bundle goes.
        overwrite: Replace a bundle that is there.

    Yields:
        The folder to write into.

    Raises:
        OutputError: If something is there already (`output-exists`), or writing fails.
    """
    taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    replaceable = overwrite and (folder / "configs" / "metadata.json").is_file()
    if taken and not replaceable:
        msg = (
            f"output must be a new folder, got {str(folder)!r}."
            " Choose another, or add --overwrite to replace a bundle."
        )
        raise OutputError(msg, code="output-exists")
    with atomic_folder(folder) as partial:
        yield partial


def metadata(spec: BundleSpec) -> dict[str, Any]:
    """Return `metadata.json` by MONAI's schema of 2024-07-25, with medseg's own part.

    Args:
        spec: What the bundle states.

    Returns:
        The document.
    """
    names = [name for name, _ in spec.labels]
    softmax = spec.activation == "softmax"
    outputs = [spec.first_class, *names] if softmax else names
    modality = _MODALITY_NAMES.get(spec.modalities[0], "n/a") if spec.modalities else "n/a"
    listed = ", ".join(f"{index} {name}" for index, name in enumerate(outputs))
    channels = ", ".join(name for name, _ in spec.image_channels)
    shape = [int(extent) for extent in spec.patch_size]
    return {
        "schema": SCHEMA,
        "version": FIRST_VERSION,
        "changelog": {FIRST_VERSION: "planned"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {
            "nibabel": version("nibabel"),
            "pytorch-ignite": version("pytorch-ignite"),
            "medseg": __version__,
        },
        "task": spec.task,
        "description": f"{_network_name(spec)} for {spec.task}",
        "authors": "unknown",
        "copyright": "of the one who trains it",
        "data_source": spec.dataset,
        "data_type": "nibabel" if spec.dims == 3 else "pictures",
        "image_classes": f"{spec.channels} channels: {channels}",
        "label_classes": f"{'classes' if softmax else 'regions'}: {listed}",
        "pred_classes": _what_comes_out(spec, listed),
        "eval_metrics": {},
        "intended_use": "Research; not a medical device",
        "references": [NNUNET],
        "network_data_format": {
            "inputs": {
                "image": _tensor(
                    "magnitude",
                    spec.channels,
                    shape,
                    [-10, 10],
                    {str(i): name for i, (name, _) in enumerate(spec.image_channels)},
                    modality=modality,
                )
            },
            "outputs": {
                "pred": _tensor(
                    "instances" if spec.objects else "segmentation",
                    spec.outputs,
                    shape,
                    [-100, 100],
                    {str(i): name for i, name in enumerate(outputs)},
                )
                | ({"type": "object"} if spec.objects else {}),
            },
        },
        "medseg": _own_part(spec),
    }


def _what_comes_out(spec: BundleSpec, listed: str) -> str:
    if spec.objects:
        return f"boxes, scores, classes and masks of objects: {listed}"
    return f"{spec.outputs} channels of logits: {listed}"


def _tensor(  # the fields of MONAI's schema
    what: str,
    channels: int,
    shape: list[int],
    values: list[int],
    names: Mapping[str, str],
    modality: str = "",
) -> dict[str, Any]:
    return {
        "type": "image",
        "format": what,
        **({"modality": modality} if modality else {}),
        "num_channels": channels,
        "spatial_shape": shape,
        "dtype": "float32",
        "value_range": values,
        "is_patch_data": True,
        "channel_def": dict(names),
    }


def _own_part(spec: BundleSpec) -> dict[str, Any]:
    colors = [list(color) for color in spec.label_colors]
    labels = [
        {"index": index, "name": name, "color": color, "value": value}
        for index, ((name, _), value, color) in enumerate(
            zip(spec.labels, spec.paints, colors, strict=True), start=1
        )
    ]
    part: dict[str, Any] = {
        "activation": spec.activation,
        "input": {
            "modality": list(spec.modalities) if spec.channels == 1 else [],
            "min_slices": spec.min_slices,
            "image_type_prefer": "ORIGINAL",
            "channels": [{"name": n, "modality": m} for n, m in spec.image_channels],
        },
        "labels": labels,
        "train_command": f"medseg train {spec.name} --dataset DIR",
    }
    if spec.seen:
        part["training"] = dict(spec.seen)
    if spec.objects:
        part["objects"] = True
    if spec.activation == "sigmoid":
        part["regions"] = [
            {"channel": index, "name": name, "values": list(values), "paints": value}
            for index, ((name, values), value) in enumerate(
                zip(spec.labels, spec.paints, strict=True)
            )
        ]
    return part


def card(spec: BundleSpec) -> str:
    """Return the card of a bundle that is planned and not trained: it claims no figure.

    Args:
        spec: What the bundle states.

    Returns:
        Markdown.
    """
    labels = "\n".join(
        f"| {value} | {name} | {', '.join(map(str, values))} |"
        for (name, values), value in zip(spec.labels, spec.paints, strict=True)
    )
    if spec.first_class != "background":
        first = ", ".join(map(str, spec.background))
        labels = f"| {spec.background[0]} | {spec.first_class} | {first} |\n{labels}"
    if spec.ignored:
        labels += f"\n| - | (left out) | {', '.join(map(str, spec.ignored))} |"
    channels = ", ".join(f"{n} ({m or 'any modality'})" for n, m in spec.image_channels)
    choice = ""
    if spec.network_name:
        choice = (
            "\n`--set network=NAME` trains another network and writes it into"
            " `configs/common.yaml`: fcn8s, segnet,\nunet_resnet, deeplabv3plus, pspnet and others"
            " (`medseg.networks.network_names()`).\n"
        )
    return f"""\
# {spec.name}

{spec.task[:1].upper()}{spec.task[1:]}.

Planned by medseg {__version__} on: {spec.dataset}.
`configs/plan.json` says which rule and which numbers are behind each choice.

**Without trained weights:** this card claims no score.

**What it is not for:** images of other regions, modalities or contrast than those it is trained
on, and diagnosis. It is not a medical device.

Image channels: {channels}.
Network: {_network_line(spec)}, batch size {spec.batch_size}.

| value in masks | label | values in label files |
|---|---|---|
{labels}

## Commands

```bash
medseg train {spec.name} --dataset DIR          # --time-budget 8h, --fold all, --resume
medseg segment IMAGES -b {spec.name} -o OUT
medseg evaluate OUT LABELS -b {spec.name}
```
{choice}
The same with MONAI alone, from this folder (`--dataset_dir DIR` at the end of each line; the last
segments the images in `DIR/imagesTs`):

```bash
python -m monai.bundle run --config_file "{_listed_configs("train")}"
python -m monai.bundle run --config_file "{_listed_configs("train", "evaluate")}"
python -m monai.bundle run --config_file "{_listed_configs("inference")}"
```
"""


def _network_name(spec: BundleSpec) -> str:
    name: str = spec.network_name or spec.network_def["_target_"].rpartition(".")[2]
    return name


def _network_line(spec: BundleSpec) -> str:
    network = _network_name(spec)
    patch = " x ".join(str(extent) for extent in spec.patch_size)
    spacing = " x ".join(f"{value:.4g}" for value in spec.spacing)
    if spec.in_pixels and set(spec.spacing) == {1.0}:
        return f"{network}, patches of {patch} pixels"
    if spec.in_pixels:
        factors = " x ".join(f"{1 / value:.3g}" for value in dict.fromkeys(spec.spacing))
        return f"{network}, patches of {patch} pixels, images {factors} times enlarged"
    return f"{network}, patches of {patch} voxels at {spacing} mm"


def _listed_configs(*names: str) -> str:
    return "[" + ",".join(f"'configs/{name}.yaml'" for name in ("common", *names)) + "]"


def _licence() -> str:
    return (
        "The configuration files of this bundle were written by medseg and may be used under the\n"
        "Apache License 2.0. The licence of weights trained with them is for the one who trains\n"
        "them to state, and depends on that of the data.\n"
    )


def copy_configs(source: Path, target: Path) -> None:
    """Copy what is needed to train a bundle elsewhere: all but weights, logs and caches.

    Args:
        source: Folder of the bundle.
        target: Folder that gets the copy.
    """
    for name in ("configs", "docs", "LICENSE"):
        there = source / name
        if there.is_dir():
            shutil.copytree(there, target / name)
        elif there.is_file():
            shutil.copy(there, target / name)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON document of a bundle.

    Args:
        path: The file.

    Returns:
        The document.
    """
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document
