"""What an nnU-Net v2 results folder says of a model; no torch needed."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.errors import BundleError

PICTURES = "NaturalImage2DIO"
REORIENTING = "NibabelIOWithReorient"
READERS = ("SimpleITKIO", "NibabelIO", REORIENTING, PICTURES)
"""Readers whose axes are known here; those that turn no image leave it as the file has it."""

RESAMPLER = "resample_data_or_seg_to_shape"
_CHECKPOINTS = ("final", "best", "latest")
_MODALITIES = {
    "ct": "CT", "mr": "MR", "mri": "MR", "pet": "PT", "pt": "PT", "us": "US",
    "t1": "MR", "t2": "MR", "t1w": "MR", "t2w": "MR", "t1ce": "MR", "t1gd": "MR", "flair": "MR",
    "adc": "MR", "dwi": "MR", "r": "RGB", "g": "RGB", "b": "RGB",
}  # fmt: skip


@dataclass(frozen=True)
class Resampling:
    """How nnU-Net interpolates.

    Attributes:
        order: Of the spline.
        coarse_order: Along a coarse axis that is interpolated apart.
        separate: Interpolate the coarsest axis apart; None for where one is much coarser.
    """

    order: int
    coarse_order: int
    separate: bool | None


@dataclass(frozen=True)
class NnunetModel:
    """A trained configuration of nnU-Net v2.

    Lists of axes are in nnU-Net's order, see `axes`.

    Attributes:
        dataset: Name of the data it was trained on.
        configuration: `2d`, `3d_fullres`, ...
        trainer: Name of the trainer; empty where the folder does not say.
        plans: Name of the plans.
        channels: Names of the image channels.
        schemes: Of `NormalizeChannelsd`, one a channel.
        labels: (name, values) of each output channel but background.
        paints: The value of each of these in a mask.
        regions: Output channels are regions that may overlap.
        spacing_mm: Of the network's grid.
        patch_size: Of a window; voxels.
        transpose: Axis of the image that each axis of the network is.
        reader: Name of nnU-Net's reader.
        network: Arguments of `NnunetUNet`.
        image: Interpolation of images.
        logits: Interpolation of class maps.
        checkpoints: Weights of each fold.
        previous: Configuration of the stage before, of a cascade; else empty.
        mask: Interpolation of the mask of that stage.
    """

    dataset: str
    configuration: str
    trainer: str
    plans: str
    channels: tuple[str, ...]
    schemes: tuple[dict[str, Any], ...]
    labels: tuple[tuple[str, tuple[int, ...]], ...]
    paints: tuple[int, ...]
    regions: bool
    spacing_mm: tuple[float, ...]
    patch_size: tuple[int, ...]
    transpose: tuple[int, ...]
    reader: str
    network: Mapping[str, Any]
    image: Resampling
    logits: Resampling
    checkpoints: Mapping[str, Path]
    previous: str = ""
    mask: Resampling = Resampling(1, 0, None)

    @property
    def mask_channels(self) -> tuple[int, ...]:
        """Values of the mask of the stage before that are further channels of the network."""
        return _mask_channels(self.labels) if self.previous else ()

    @property
    def dims(self) -> int:
        """Dimensions of the images: 2 for pictures, 3 for volumes, also of a 2D network."""
        return 2 if self.reader == PICTURES else 3

    @property
    def axes(self) -> tuple[int | None, ...]:
        """Axis of the network along each axis of the image: I, J, K, or rows, columns.

        nnU-Net's arrays of volumes are K, J, I, turned by `transpose`. None is the axis across
        the slices that a 2D network gets one by one.
        """
        if self.dims == 2:
            order = [axis - 1 for axis in self.transpose if axis > 0]
            return tuple(order.index(axis) for axis in range(2))
        lacking = 3 - len(self.patch_size)
        places = [self.transpose.index(2 - axis) - lacking for axis in range(3)]
        return tuple(place if place >= 0 else None for place in places)

    @property
    def modalities(self) -> tuple[str, ...]:
        """DICOM modality of each channel, empty where its name does not say it."""
        return tuple(_MODALITIES.get(name.strip().lower(), "") for name in self.channels)

    def by_axis(self, values: Sequence[Any], missing: Any) -> list[Any]:
        """Return values of the network's axes in the order of the image's.

        Args:
            values: One an axis of the network.
            missing: Of the axis across the slices of a 2D network.
        """
        return [missing if axis is None else values[axis] for axis in self.axes]


def read_nnunet_model(
    folder: Path,
    *,
    checkpoint: str | None = None,
    folds: Sequence[str] = (),
    stated: Callable[[Path], str | None] = lambda _: None,
) -> NnunetModel:
    """Read the plans of a results folder and find its weights.

    Args:
        folder: With `plans.json`, `dataset.json` and `fold_*`.
        checkpoint: `final`, `best` or `latest`; the first of these that is there when left out.
        folds: Names of folds, `0` or `all`; every numbered one when left out.
        stated: Reads the name of the configuration out of a checkpoint, for a folder that is not
            named after it.

    Returns:
        The model; its weights are not read.

    Raises:
        BundleError: If something is missing (`not-nnunet`), cannot be understood (`bad-plans`), or
            is not supported (`unsupported-nnunet`).
    """
    plans, dataset = _document(folder, "plans.json"), _document(folder, "dataset.json")
    trainer, _, configuration = folder.name.rpartition("__")
    trainer = trainer.partition("__")[0]
    try:
        checkpoints = _checkpoints(folder, checkpoint, folds)
        if configuration not in plans["configurations"]:
            trainer = ""
            configuration = stated(next(iter(checkpoints.values()))) or configuration
        configuration = _configuration_name(plans["configurations"], configuration)
        settings = _inherited(plans["configurations"], configuration)
        _refuse(settings)
        channels = _channels(dataset)
        labels, paints, regions = _labels(dataset)
        outputs = len(labels) + (not regions)
        previous = str(settings.get("previous_stage") or "")
        inputs = len(channels) + (len(_mask_channels(labels)) if previous else 0)
        patch = tuple(int(extent) for extent in settings["patch_size"])
        model = NnunetModel(
            dataset=str(plans.get("dataset_name") or dataset.get("name") or "unknown"),
            configuration=configuration,
            trainer=trainer,
            plans=str(plans.get("plans_name", "")),
            channels=channels,
            schemes=_schemes(settings, plans, len(channels)),
            labels=labels,
            paints=paints,
            regions=regions,
            spacing_mm=tuple(float(value) for value in settings["spacing"]),
            patch_size=patch,
            transpose=tuple(int(axis) for axis in plans["transpose_forward"]),
            reader=_reader(plans, dataset),
            network=_network(settings, len(patch), inputs, outputs),
            image=_resampling(settings, "data", (0, 1, 3)),
            logits=_resampling(settings, "probabilities", (1,)),
            checkpoints=checkpoints,
            previous=previous,
            mask=_resampling(settings, "seg", (1,)) if previous else Resampling(1, 0, None),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        msg = (
            "plans.json and dataset.json must be those of nnU-Net v2, got"
            f" {type(error).__name__}: {error}."
        )
        raise BundleError(msg, code="bad-plans") from error
    _require_known_geometry(model)
    return model


def _document(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        inner = sorted(p.parent.name for p in folder.glob("*/plans.json")) if name else []
        advice = f" Name one of its folders: {', '.join(inner)}." if inner else ""
        msg = (
            "folder must be the results of one nnU-Net v2 configuration, with plans.json,"
            f" dataset.json and fold_*, got {folder.name!r} without {name}.{advice}"
        )
        raise BundleError(msg, code="not-nnunet")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{name} must be JSON, got {type(error).__name__}: {error}."
        raise BundleError(msg, code="bad-plans") from error
    if not isinstance(document, dict):
        msg = f"{name} must hold an object, got {type(document).__name__}."
        raise BundleError(msg, code="bad-plans")
    return document


def _unsupported(what: str) -> BundleError:
    return BundleError(what, code="unsupported-nnunet")


def _configuration_name(configurations: Mapping[str, Any], name: str) -> str:
    if name in configurations:
        return name
    msg = (
        "folder must end in the name of its configuration, as nnU-Net writes it"
        " (nnUNetTrainer__nnUNetPlans__3d_fullres), or its checkpoint state it, one of"
        f" {', '.join(sorted(configurations))}; got {name!r}. Rename it."
    )
    raise BundleError(msg, code="not-nnunet")


def _inherited(configurations: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a configuration with what it takes over from others."""
    seen: list[str] = []
    chain: list[Mapping[str, Any]] = []
    current: str | None = name
    while current is not None:
        if current in seen:
            msg = f"inherits_from must end, got the circle {' -> '.join([*seen, current])}"
            raise ValueError(msg)
        seen.append(current)
        chain.append(configurations[current])
        current = configurations[current].get("inherits_from")
    merged: dict[str, Any] = {}
    for one in reversed(chain):
        merged |= one
    return merged


def _refuse(settings: Mapping[str, Any]) -> None:
    preprocessor = settings.get("preprocessor_name", "DefaultPreprocessor")
    if preprocessor != "DefaultPreprocessor":
        msg = f"preprocessor_name must be DefaultPreprocessor, got {preprocessor!r}."
        raise _unsupported(msg)


def _channels(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    names = dataset.get("channel_names") or dataset["modality"]
    return tuple(str(names[key]) for key in sorted(names, key=int))


def _labels(
    dataset: Mapping[str, Any],
) -> tuple[tuple[tuple[str, tuple[int, ...]], ...], tuple[int, ...], bool]:
    """Return (name, values) of each output channel, its value in masks, and if they overlap."""
    every = {
        str(name): tuple(int(v) for v in (value if isinstance(value, list) else [value]))
        for name, value in dataset["labels"].items()
        if name != "ignore"
    }
    found = [(name, values) for name, values in every.items() if set(values) != {0}]
    if any(len(values) > 1 for values in every.values()):
        order = tuple(int(value) for value in dataset["regions_class_order"])
        if len(order) != len(found):
            msg = f"regions_class_order must have an entry a region, got {order} for {every}"
            raise ValueError(msg)
        return tuple(found), order, True
    found.sort(key=lambda item: item[1])
    paints = tuple(values[0] for _, values in found)
    if paints != tuple(range(1, len(found) + 1)):
        msg = f"labels must be numbered from 1 without a gap, got {every}"
        raise ValueError(msg)
    return tuple(found), paints, False


def _mask_channels(labels: Sequence[tuple[str, tuple[int, ...]]]) -> tuple[int, ...]:
    return tuple(sorted({value for _, values in labels for value in values} - {0}))


def _schemes(
    settings: Mapping[str, Any], plans: Mapping[str, Any], channels: int
) -> tuple[dict[str, Any], ...]:
    names = settings["normalization_schemes"]
    masked = settings["use_mask_for_norm"]
    properties = plans["foreground_intensity_properties_per_channel"]
    if not len(names) == len(masked) == channels:
        msg = f"normalization_schemes must be one a channel, got {names} for {channels}"
        raise ValueError(msg)
    return tuple(
        _scheme(name, bool(masked[number]), properties.get(str(number), {}))
        for number, name in enumerate(names)
    )


def _scheme(name: str, masked: bool, seen: Mapping[str, Any]) -> dict[str, Any]:
    if name == "CTNormalization":
        return {
            "scheme": "ct",
            "low": float(seen["percentile_00_5"]),
            "high": float(seen["percentile_99_5"]),
            "mean": float(seen["mean"]),
            "std": float(seen["std"]),
        }
    known: dict[str, dict[str, Any]] = {
        "ZScoreNormalization": {"scheme": "zscore", "nonzero": masked},
        "RescaleTo01Normalization": {"scheme": "rescale"},
        "NoNormalization": {"scheme": "none"},
        "RGBTo01Normalization": {"scheme": "fixed", "mean": 0.0, "std": 255.0},
    }
    if name not in known:
        msg = (
            f"normalisation must be one of {', '.join(['CTNormalization', *known])}, got {name!r}."
        )
        raise _unsupported(msg)
    return known[name]


def _reader(plans: Mapping[str, Any], dataset: Mapping[str, Any]) -> str:
    name = str(plans.get("image_reader_writer") or dataset.get("overwrite_image_reader_writer"))
    if name not in READERS:
        msg = f"image_reader_writer must be one of {', '.join(READERS)}, got {name!r}."
        raise _unsupported(msg)
    return name


def _resampling(settings: Mapping[str, Any], what: str, orders: Sequence[int]) -> Resampling:
    name = settings[f"resampling_fn_{what}"]
    given = settings.get(f"resampling_fn_{what}_kwargs") or {}
    if name != RESAMPLER:
        msg = f"resampling_fn_{what} must be {RESAMPLER}, got {name!r}."
        raise _unsupported(msg)
    separate = given.get("force_separate_z", False)
    order, coarse = int(given.get("order", 3)), int(given.get("order_z", 0))
    planes = {"data": (0, 1, 3), "probabilities": (0, 1), "seg": (0,)}[what]
    if order not in orders or coarse not in planes:
        msg = (
            f"resampling_fn_{what} must have an order among {list(orders)}, got order {order} and"
            f" order_z {coarse}."
        )
        raise _unsupported(msg)
    return Resampling(order, coarse, separate if separate is None else bool(separate))


def _network(settings: Mapping[str, Any], dims: int, channels: int, outputs: int) -> dict[str, Any]:
    """Return the arguments of `NnunetUNet`, from plans of both forms."""
    name, given = _architecture(settings)
    kinds = {"PlainConvUNet": False, "ResidualEncoderUNet": True}
    kind = name.rpartition(".")[2]
    if kind not in kinds or given.get("squeeze_excitation") or given.get("bottleneck_channels"):
        msg = (
            f"network must be one of {', '.join(kinds)} of plain blocks, got {kind!r} with"
            f" {', '.join(sorted(given))}."
        )
        raise _unsupported(msg)
    stages = int(given["n_stages"])
    norm, slope = _norm(given), _slope(given)
    blocks = given.get("n_blocks_per_stage", given.get("n_conv_per_stage"))
    return {
        "spatial_dims": dims,
        "in_channels": channels,
        "out_channels": outputs,
        "features": _each(given["features_per_stage"], stages),
        "kernel_sizes": [_each(size, dims) for size in _each(given["kernel_sizes"], stages)],
        "strides": [_each(size, dims) for size in _each(given["strides"], stages)],
        "encoder_blocks": _each(blocks, stages),
        "decoder_blocks": _each(given["n_conv_per_stage_decoder"], stages - 1),
        "residual": kinds[kind],
        "conv_bias": bool(given.get("conv_bias", False)),
        "norm": norm,
        "norm_eps": float((given.get("norm_op_kwargs") or {}).get("eps", 1e-5)),
        "negative_slope": slope,
    }


def _architecture(settings: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    if architecture := settings.get("architecture"):
        return str(architecture["network_class_name"]), architecture["arch_kwargs"]
    # plans before nnU-Net 2.4 leave the rest to its code
    strides = settings["pool_op_kernel_sizes"]
    base, most = int(settings["UNet_base_num_features"]), int(settings["unet_max_num_features"])
    return str(settings["UNet_class_name"]), {
        "n_stages": len(strides),
        "features_per_stage": [min(base * 2**level, most) for level in range(len(strides))],
        "kernel_sizes": settings["conv_kernel_sizes"],
        "strides": strides,
        "n_blocks_per_stage": settings["n_conv_per_stage_encoder"],
        "n_conv_per_stage_decoder": settings["n_conv_per_stage_decoder"],
        "conv_bias": True,
    }


def _each(value: Any, count: int) -> list[Any]:
    """Return a value for each of several, of which one may stand for all."""
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        msg = f"lists of the network must have {count} entries, got {value}"
        raise ValueError(msg)
    return list(value)


def _norm(given: Mapping[str, Any]) -> str:
    name = str(given.get("norm_op") or "InstanceNorm").rpartition(".")[2]
    kind = re.sub(r"\dd$", "", name)
    known = {"InstanceNorm": "instance", "BatchNorm": "batch"}
    if kind not in known or (given.get("norm_op_kwargs") or {}).get("affine", True) is not True:
        msg = f"norm_op must be InstanceNorm or BatchNorm with affine numbers, got {name!r}."
        raise _unsupported(msg)
    return known[kind]


def _slope(given: Mapping[str, Any]) -> float:
    name = str(given.get("nonlin") or "LeakyReLU").rpartition(".")[2]
    if name not in ("LeakyReLU", "ReLU"):
        msg = f"nonlin must be LeakyReLU or ReLU, got {name!r}."
        raise _unsupported(msg)
    slope = (given.get("nonlin_kwargs") or {}).get("negative_slope", 0.01)
    return float(slope) if name == "LeakyReLU" else 0.0


def _checkpoints(folder: Path, which: str | None, folds: Sequence[str]) -> dict[str, Path]:
    there = {path.name.removeprefix("fold_"): path for path in sorted(folder.glob("fold_*"))}
    numbered = sorted((name for name in there if name.isdigit()), key=int)
    chosen = list(dict.fromkeys(folds)) or numbered or [name for name in there if name == "all"]
    kinds = [which] if which else list(_CHECKPOINTS)
    for kind in kinds:
        files = {fold: there[fold] / f"checkpoint_{kind}.pth" for fold in chosen if fold in there}
        present = {fold: path for fold, path in files.items() if path.is_file()}
        if present and (len(present) == len(chosen) or not folds):
            return present
    names = " or ".join(f"checkpoint_{kind}.pth" for kind in kinds)
    msg = (
        f"folder must hold {names} in {' and '.join(f'fold_{f}' for f in chosen) or 'fold_*'},"
        f" got the folds {', '.join(there) or 'none'}."
    )
    raise BundleError(msg, code="not-nnunet")


def _require_known_geometry(model: NnunetModel) -> None:
    dims = len(model.patch_size)
    if sorted(model.transpose) != [0, 1, 2] or not dims == len(model.spacing_mm) in (2, 3):
        msg = (
            "plans must have a patch size and a spacing of 2 or 3 axes, and a transposition of 3,"
            f" got {model.patch_size}, {model.spacing_mm} and {model.transpose}."
        )
        raise BundleError(msg, code="bad-plans")
    if model.dims == 2 and (dims == 3 or set(model.spacing_mm) != {1.0}):
        msg = (
            "a network for pictures must be 2D and work in their own pixels, got a spacing of"
            f" {model.spacing_mm}."
        )
        raise _unsupported(msg)
