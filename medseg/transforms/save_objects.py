"""Write the objects of pictures, for bundles that MONAI runs."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey

from medseg.errors import UsageError
from medseg.io.coco_results import write_coco
from medseg.io.files import file_stem
from medseg.io.locator import plain_path
from medseg.io.raster import MOST_IN_PNG, write_label_map
from medseg.objects import ObjectInstances


class SaveObjectsd(MapTransform):  # type: ignore[misc]  # monai is untyped
    """Write the objects of a batch of images: COCO JSON and a map of their numbers.

    The files are called after the image: `<name>_objects.json`, which holds candidates of low
    scores too, and `<name>_instances.png` (TIFF beyond 65535 objects) of those that count.

    Args:
        keys: Of the objects: a list, an image each.
        image_key: Of the images, which know their files.
        output_dir: Folder; made if need be.
        names: Of the classes, from class 1 on.
        least_score: Of the objects that the map shows.

    Raises:
        UsageError: If there are not as many lists of objects as images, or an image does not say
            which file it is of.
        OutputError: If a file cannot be written.
    """

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str,
        output_dir: str,
        names: Sequence[str],
        least_score: float = 0.5,
    ) -> None:
        super().__init__(keys)
        self.image_key = image_key
        self.output_dir = Path(output_dir)
        self.names = tuple(names)
        self.least_score = float(least_score)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the objects of a batch.

        Args:
            data: With a list of `ObjectInstances` a key, and the (B, C, rows, columns) images.

        Returns:
            The same.
        """
        result = dict(data)
        files = _files_of(result.get(self.image_key))
        for key in self.key_iterator(result):
            several: Sequence[ObjectInstances] = result[key]
            if len(several) != len(files) or not all(files):
                msg = (
                    f"{key} must be the objects of images that know their files, got"
                    f" {len(several)} of {files!r}."
                )
                raise UsageError(msg)
            for objects, file in zip(several, files, strict=True):
                self._write(objects, plain_path(file))
        return result

    def _write(self, objects: ObjectInstances, file: Path) -> None:
        stem = file_stem(file)
        image = (file.name, objects)
        write_coco(self.output_dir / f"{stem}_objects.json", [image], self.names)
        counted = objects.chosen(objects.scores >= self.least_score)
        suffix = "png" if len(counted) <= MOST_IN_PNG else "tif"
        write_label_map(
            counted.label_map(nested_on_top=True), self.output_dir / f"{stem}_instances.{suffix}"
        )


def _files_of(images: Any) -> list[str]:
    """Return the file of each image of a batch."""
    meta = images.meta if isinstance(images, MetaTensor) else {}
    files = meta.get(ImageMetaKey.FILENAME_OR_OBJ, [])
    return [files] if isinstance(files, str) else [str(file) for file in files]
