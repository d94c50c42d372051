"""Write masks of pictures, for bundles that MONAI runs."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey

from medseg.errors import UsageError
from medseg.io.files import file_stem
from medseg.io.locator import plain_path
from medseg.io.raster import write_palette_png
from medseg.volume import Label


class SavePaletted(MapTransform):  # type: ignore[misc]  # monai is untyped
    """Write 2D masks as PNG whose pixel values are the classes, shown in colours.

    MONAI's own writer of PNG turns rows into columns, as its reader does; medseg's reader leaves
    them. The file is called after the image: `<name>_seg.png`.

    Args:
        keys: Of the masks.
        output_dir: Folder; made if need be.
        colors: Red, green, blue of classes 1, 2, 3 ...; PASCAL VOC's where left out.

    Raises:
        UsageError: If a mask is not (1, rows, columns), or does not say which image it is of.
        OutputError: If a file cannot be written.
    """

    def __init__(
        self, keys: KeysCollection, output_dir: str, colors: Sequence[Sequence[int]] = ()
    ) -> None:
        super().__init__(keys)
        self.output_dir = Path(output_dir)
        self.labels = [
            Label(index, str(index), (int(red), int(green), int(blue)))
            for index, (red, green, blue) in enumerate(colors, start=1)
        ]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the masks of a case.

        Args:
            data: With (1, rows, columns) masks of whole numbers, uint8 or uint16.

        Returns:
            The same.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            mask = result[key]
            name = (
                mask.meta.get(ImageMetaKey.FILENAME_OR_OBJ) if isinstance(mask, MetaTensor) else ""
            )
            if mask.ndim != 3 or len(mask) != 1 or not name:
                msg = (
                    f"{key} must be (1, rows, columns) with the name of its image, got"
                    f" {tuple(mask.shape)} of {name!r}."
                )
                raise UsageError(msg)
            values = mask.as_tensor()[0].cpu()
            dtype = torch.uint8 if int(values.max()) <= 255 else torch.uint16
            stem = file_stem(plain_path(name))
            write_palette_png(
                values.to(dtype).numpy(), self.labels, self.output_dir / f"{stem}_seg.png"
            )
        return result
