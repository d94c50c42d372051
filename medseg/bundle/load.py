"""Read what a bundle says of itself; no torch needed."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.bundle.check.files import SCRIPT, WEIGHTS
from medseg.bundle.concepts import CODES, read_concept
from medseg.bundle.find import METADATA, find_bundle
from medseg.bundle.folds import advice_on_folds
from medseg.bundle.foreign import (
    activation_of,
    channel_names,
    is_foreign,
    modalities_of,
    require_segmentation,
    weights_of,
)
from medseg.errors import BundleError
from medseg.volume import DEFAULT_COLORS, Concept, Label

if TYPE_CHECKING:  # listing bundles needs no DICOM library
    from medseg.io.dicom import DicomVolume

INFERENCE_CONFIGS = (
    ("configs/common.yaml", "configs/inference.yaml"),
    ("configs/inference.yaml",),
    ("configs/inference.yml",),
    ("configs/inference.json",),
)
"""Sets of config files that describe inference, in the order they are looked for."""

COLOURS = ("red", "green", "blue")
"""Channels of a colour image."""


@dataclass(frozen=True)
class InputRule:
    """Which volumes a bundle is meant for: `medseg.input` of its metadata.

    Attributes:
        modality: DICOM modalities; empty for any.
        min_slices: Fewest slices.
        max_spacing_mm: Largest distance between voxel centres along any axis; mm.
        image_type_prefer: Image type that wins where several volumes fit.
        channels: Image channels.
        channel_rules: Name and modality of each.
        dims: Spatial dimensions of the images that its metadata describe, 2 or 3.
    """

    modality: tuple[str, ...] = ()
    min_slices: int = 2
    max_spacing_mm: float | None = None
    image_type_prefer: str = "ORIGINAL"
    channels: int = 1
    channel_rules: tuple[tuple[str, str], ...] = ()
    dims: int = 3

    @property
    def is_colour(self) -> bool:
        """Whether the channels are red, green and blue, so that each image is one file."""
        names = tuple(name.lower() for name, _ in self.channel_rules)
        modalities = {modality.upper() for _, modality in self.channel_rules}
        return self.channels == len(COLOURS) and (
            names == COLOURS
            or names == tuple(colour[0] for colour in COLOURS)
            or modalities == {"RGB"}
        )

    def reason_against(self, volume: "DicomVolume") -> str | None:
        """Say why a DICOM volume is not one the bundle is meant for.

        Args:
            volume: The volume.

        Returns:
            A reason, or None for a volume that fits.
        """
        if self.modality and volume.modality not in self.modality:
            wanted = " or ".join(self.modality)
            return f"it is {volume.modality or 'of no modality'}, the bundle wants {wanted}"
        if volume.is_2d and self.dims == 2:
            return None
        if volume.is_2d:
            return "it is a 2D image without patient geometry"
        if volume.size[2] < self.min_slices:
            return f"it has {volume.size[2]} slices, the bundle wants at least {self.min_slices}"
        coarsest = max(volume.spacing_mm)
        if self.max_spacing_mm is not None and coarsest > self.max_spacing_mm:
            return (
                f"its spacing is {coarsest:g} mm, the bundle wants {self.max_spacing_mm:g} at most"
            )
        return None


@dataclass(frozen=True)
class Bundle:
    """A MONAI bundle on disk.

    Attributes:
        root: Its folder.
        metadata: `configs/metadata.json`.
        labels: What the masks can hold, background left out.
        input_rule: Which volumes it is meant for.
        config_files: Config files that describe inference, in loading order.
        values: The value in masks of each output channel; of classes the first is background.
        regions: Output channels are regions that may overlap, not classes.
        postprocessing: Steps on the finished mask, as the metadata state them.
        members: Weight files whose predictions are averaged; the one of `weights` when empty.
        mirror_axes: Spatial axes that test-time augmentation mirrors; all when None.
        restoring: Rules of other software by which class maps come to the source grid, as
            `medseg.inference.restore.Restoring` takes them; medseg's own when None.
        checkpoint: Weight file that its configs load, below its folder.
    """

    root: Path
    metadata: dict[str, Any]
    labels: tuple[Label, ...]
    input_rule: InputRule
    config_files: tuple[Path, ...]
    values: tuple[int, ...] = ()
    regions: bool = False
    postprocessing: tuple[dict[str, Any], ...] = ()
    members: tuple[Path, ...] = ()
    mirror_axes: tuple[int, ...] | None = None
    restoring: dict[str, Any] | None = None
    checkpoint: str = WEIGHTS

    @property
    def name(self) -> str:
        """Name of the bundle's folder."""
        return self.root.name

    @property
    def version(self) -> str:
        """Version from the metadata."""
        return str(self.metadata["version"])

    @property
    def description(self) -> str:
        """One line on what it does."""
        return str(self.metadata.get("description", ""))

    @property
    def card(self) -> str:
        """Text of the bundle's card, empty if it has none."""
        path = self.root / "docs" / "README.md"
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    @property
    def finds_objects(self) -> bool:
        """Whether it finds objects, each apart from the others, and no classes of pixels."""
        return bool(self.metadata.get("medseg", {}).get("objects", False))

    @property
    def seen(self) -> dict[str, Any]:
        """Ranges of its training data, from the metadata; empty where they state none."""
        found = self.metadata.get("medseg", {}).get("training", {})
        return found if isinstance(found, dict) else {}

    @property
    def train_command(self) -> str:
        """Command that trains it, from the metadata."""
        return str(self.metadata.get("medseg", {}).get("train_command", ""))

    @property
    def is_foreign(self) -> bool:
        """Whether it states nothing for medseg, as those of MONAI's model zoo."""
        return is_foreign(self.metadata)

    @property
    def is_imported(self) -> bool:
        """Whether it was made of a model of other software."""
        return "imported_from" in self.metadata.get("medseg", {})

    @property
    def weights(self) -> Path:
        """Where its inference weights lie: a state dict, or where there is none, TorchScript."""
        files = [self.root / name for name in (self.checkpoint, WEIGHTS, SCRIPT)]
        return next((file for file in files if file.is_file()), files[0])

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """The weight files that a prediction needs."""
        return self.members or (self.weights,)

    @property
    def has_weights(self) -> bool:
        """Whether the weights are there."""
        return all(path.is_file() for path in self.weight_files)

    def weights_sha256(self) -> str | None:
        """Return the hash of the weights, or None without weights."""
        if not self.has_weights:
            return None
        digests = []
        for path in self.weight_files:
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        if len(digests) == 1:
            return digests[0]
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()

    def require_weights(self) -> None:
        """Raise unless the bundle can segment.

        Raises:
            BundleError: If the weights are missing (code `no-weights`).
        """
        if self.has_weights:
            return
        hint = self.train_command or "see the bundle's docs/README.md"
        msg = f"bundle must have trained weights, got {self.name} without. Train it: {hint}"
        if advice := advice_on_folds(self.root):
            msg = (
                f"bundle must have trained weights in models/model.pt, got {self.name} with those"
                f" of single folds. {advice[0].upper()}{advice[1:]}"
            )
        raise BundleError(msg, code="no-weights")


def load_bundle(name: str | Path) -> Bundle:
    """Read a bundle's metadata.

    Args:
        name: Folder of a bundle, or the name of one on the search path.

    Returns:
        The bundle; its weights are not read.

    Raises:
        BundleError: If it is not found, or its metadata or configs are missing or wrong.
    """
    root = find_bundle(name)
    try:
        metadata = json.loads((root / METADATA).read_text(encoding="utf-8"))
        own = metadata.get("medseg", {})
        require_segmentation(root.name, metadata)
        formats = metadata["network_data_format"]
        channels = int(formats["inputs"]["image"]["num_channels"]) - len(
            own.get("previous_stage", {}).get("labels", ())
        )
        names = channel_names(formats["outputs"]["pred"])
        str(metadata["version"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        msg = f"metadata of {root.name} must follow MONAI's schema, got {reason}."
        raise BundleError(msg, code="bad-metadata") from error
    rule = own.get("input", {})
    shape = formats["inputs"]["image"].get("spatial_shape")
    dims = 2 if isinstance(shape, list) and len(shape) == 2 else 3
    files = _config_files(root)
    checkpoint = WEIGHTS
    if is_foreign(metadata):
        require_segmentation(root.name, metadata, files)
        image = formats["inputs"]["image"]
        checkpoint = weights_of(files)
        own = {"activation": activation_of(files)}
        rule = {"modality": modalities_of(image)}
    labels, values = _labels_and_values(root.name, names, own, dims)
    return Bundle(
        root=root,
        metadata=metadata,
        labels=labels,
        values=values,
        regions=own.get("activation", "softmax") == "sigmoid",
        postprocessing=tuple(own.get("postprocessing", ())),
        members=tuple(root / name for name in own.get("ensemble", ())),
        mirror_axes=None if (axes := own.get("mirror_axes")) is None else tuple(axes),
        restoring=own.get("restoring"),
        input_rule=InputRule(
            modality=tuple(rule.get("modality", ())),
            min_slices=int(rule.get("min_slices", 2)),
            max_spacing_mm=rule.get("max_spacing_mm"),
            image_type_prefer=str(rule.get("image_type_prefer", "ORIGINAL")),
            channels=channels,
            channel_rules=_channel_rules(rule, formats["inputs"]["image"], channels),
            dims=dims,
        ),
        config_files=files,
        checkpoint=checkpoint,
    )


def _channel_rules(
    rule: dict[str, Any], image: dict[str, Any], count: int
) -> tuple[tuple[str, str], ...]:
    """Return name and modality of each channel: medseg's, else the names of MONAI's metadata."""
    stated = rule.get("channels") or [
        {"name": name} for _, name in sorted((image.get("channel_def") or {}).items())
    ]
    if len(stated) != count:
        return ()
    modalities = rule.get("modality", ())
    known = modalities[0] if len(modalities) == 1 else ""
    return tuple((str(one["name"]), str(one.get("modality") or known)) for one in stated)


def _labels_and_values(
    bundle: str, names: dict[int, str], own: dict[str, Any], dims: int
) -> tuple[tuple[Label, ...], tuple[int, ...]]:
    """Return the labels of a mask, and the value of each output channel."""
    activation = own.get("activation", "softmax")
    if activation not in ("softmax", "sigmoid"):
        msg = f"activation of {bundle} must be softmax or sigmoid, got {activation!r}."
        raise BundleError(msg, code="bad-metadata")
    table = {int(entry["index"]): entry for entry in own.get("labels", [])}
    regions = activation == "sigmoid"
    inside = {str(entry["name"]): entry["values"] for entry in own.get("regions", [])}
    labels, values = [], [] if regions else [0]
    for channel in sorted(names):
        if channel == 0 and not regions:
            continue
        index = channel + 1 if regions else channel
        entry = table.get(index, {})
        value = int(entry.get("value", index))
        color = tuple(entry.get("color") or _color(index, value, dims))
        within = inside.get(names[channel], ()) if regions else ()
        code, category = (_concept(bundle, names[channel], entry, key) for key in CODES)
        inside_it = tuple(int(v) for v in within)
        labels.append(Label(value, names[channel], color, inside_it, code, category))
        values.append(value)
    if sorted(names) != list(range(len(names))) or not all(
        0 < v <= 65535 for v in values[-len(labels) :]
    ):
        msg = (
            f"channels of {bundle} must be numbered from 0 and its labels have values from 1 to"
            f" 65535, got channels {sorted(names)} and values {values}."
        )
        raise BundleError(msg, code="bad-metadata")
    return tuple(labels), tuple(values)


def _concept(bundle: str, label: str, entry: dict[str, Any], key: str) -> Concept | None:
    """Return what the table of labels states of a label in codes."""
    try:
        return read_concept(entry.get(key))
    except ValueError as error:
        msg = f"{key} of the label {label!r} of {bundle} {error}."
        raise BundleError(msg, code="bad-metadata") from error


def _color(index: int, value: int, dims: int) -> tuple[int, ...]:
    """Return the colour of a label without one: in pictures PASCAL VOC's of its value."""
    if dims == 2 and value <= 255:
        from medseg.io.raster import voc_colors  # noqa: PLC0415  (its decoders are slow to import)

        return tuple(int(part) for part in voc_colors(value + 1)[value])
    return DEFAULT_COLORS[(index - 1) % len(DEFAULT_COLORS)]


def _config_files(root: Path) -> tuple[Path, ...]:
    for names in INFERENCE_CONFIGS:
        files = tuple(root / name for name in names)
        if all(file.is_file() for file in files):
            return files
    wanted = " or ".join(" + ".join(names) for names in INFERENCE_CONFIGS)
    msg = f"bundle must have {wanted}, got {root.name} without."
    raise BundleError(msg, code="no-inference-config")
