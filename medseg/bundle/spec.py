"""All that a trainable bundle states, before it is written as YAML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from medseg.data.dataset import painted_values
from medseg.io.raster import voc_colors
from medseg.volume import DEFAULT_COLORS, IGNORED

TILE = 896
"""Rows and columns of pictures that objects are found in at once: every seam costs some."""


@dataclass(frozen=True)
class BundleSpec:
    """A bundle to be written.

    Attributes:
        name: Of its folder.
        task: One line on what it segments.
        dataset: Name of the data it was planned on.
        image_channels: (name, modality) of each.
        labels: (name, values in label files) of each class but background, or of each region.
        background: Values in label files that are background.
        activation: `softmax` for classes, `sigmoid` for regions that overlap.
        spacing: Of the network's grid, in the order of RAS.
        patch_size: Voxels.
        batch_size: Samples.
        network_def: `_target_` and arguments; `out_channels` and `deep_supervision` refer to the
            configs.
        schemes: Of `NormalizeChannelsd`, one a channel.
        coarse_axis: Of anisotropic data; not interpolated across.
        in_plane: Augmentation turns images within their slices alone, across this axis.
        min_slices: Fewest slices of an image that is segmented.
        epochs: Of 250 iterations.
        fixed_splits: The cases of each fold are listed in `configs/splits.json`; else folds are
            dealt from the dataset that is given.
        ignored: Values in label files of what is neither trained on nor scored.
        first_class: Name of class 0; of pictures it may be a thing like any other.
        photographs: Pictures with an up and a down, in colour: all classes count alike, and
            augmentation changes colours.
        network_name: Of a network of `medseg.networks.network_names`, which `network_def` then
            refers to; empty where it states one itself.
        colors: Name of a label to its red, green and blue, where the dataset states them.
        objects: It finds objects, each apart from the others, and no classes of pixels.
        in_pixels: The spacing is in pixels of the file, of pictures that state no size; else mm.
        seen: Ranges of the training data that results are held against; see `seen_in_training`.
    """

    name: str
    task: str
    dataset: str
    image_channels: Sequence[tuple[str, str]]
    labels: Sequence[tuple[str, Sequence[int]]]
    spacing: Sequence[float]
    patch_size: Sequence[int]
    batch_size: int
    network_def: Mapping[str, Any]
    schemes: Sequence[Mapping[str, Any]]
    background: Sequence[int] = (0,)
    activation: Literal["softmax", "sigmoid"] = "softmax"
    coarse_axis: int | None = None
    in_plane: int | None = None
    min_slices: int = 2
    epochs: int = 1000
    fixed_splits: bool = True
    ignored: Sequence[int] = ()
    first_class: str = "background"
    photographs: bool = False
    network_name: str = ""
    colors: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    objects: bool = False
    in_pixels: bool = False
    seen: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spacing_key(self) -> str:
        """Key of the spacing in the configs, which says its unit."""
        return "spacing_px" if self.in_pixels else "spacing_mm"

    @property
    def tile_size(self) -> list[int]:
        """Rows and columns of pictures that objects are found in at once."""
        return [max(TILE, extent) for extent in self.patch_size]

    @property
    def tile_overlap(self) -> float:
        """Share of a tile that the next one sees as well: more where objects are large."""
        largest = max(max(sizes) for sizes in self.network_def["anchor_sizes"])
        return 0.125 if largest <= min(self.tile_size) / 12 else 0.25

    @property
    def dims(self) -> int:
        """Spatial dimensions, 2 or 3."""
        return len(self.patch_size)

    @property
    def channels(self) -> int:
        """Image channels."""
        return len(self.image_channels)

    @property
    def in_colour(self) -> bool:
        """Whether images are pictures in red, green and blue."""
        return self.dims == 2 and [m for _, m in self.image_channels] == ["RGB"] * 3

    @property
    def outputs(self) -> int:
        """Output channels: classes with background, or regions."""
        return len(self.labels) + (self.activation == "softmax")

    @property
    def paints(self) -> tuple[int, ...]:
        """The value of each class or region in a mask.

        Regions are painted over each other in order, see `painted_values`.
        """
        if self.activation == "softmax":
            return tuple(values[0] for _, values in self.labels)
        return painted_values([values for _, values in self.labels])

    @property
    def label_colors(self) -> list[tuple[int, int, int]]:
        """A colour a label: the dataset's own, PASCAL VOC's for pictures, or medseg's."""
        rest: list[tuple[int, int, int]] = list(DEFAULT_COLORS)
        if self.dims == 2:
            rest = [(int(r), int(g), int(b)) for r, g, b in voc_colors(256)[1:]]
        names = [name for name, _ in self.labels]
        return [self.colors.get(name) or rest[i % len(rest)] for i, name in enumerate(names)]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities of the channels, each once, unknown ones left out."""
        return tuple(dict.fromkeys(m for _, m in self.image_channels if m))

    @property
    def ignore_index(self) -> int | None:
        """Class number of what is left out; None where nothing is."""
        left_out = (self.ignored or self.photographs) and not self.objects
        return IGNORED if left_out else None

    @property
    def deep(self) -> bool:
        """Whether the network is supervised at several levels."""
        return self.network_def.get("deep_supervision") == "@deep_supervision"
