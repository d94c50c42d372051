"""Small sets of natural images with known labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

ROWS, COLUMNS = 12, 17


def photo(seed: int, rows: int = ROWS, columns: int = COLUMNS) -> npt.NDArray[np.uint8]:
    """Return (rows, columns, 3) noise."""
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)


def index_mask(
    seed: int, values: Sequence[int], rows: int = ROWS, columns: int = COLUMNS
) -> npt.NDArray[np.uint8]:
    """Return (rows, columns) of the values, each of which occurs."""
    mask = np.random.default_rng(seed).choice(np.array(values, np.uint8), (rows, columns))
    mask.flat[: len(values)] = values
    return mask


def save(array: npt.NDArray[np.generic], path: Path, palette: bytes | None = None) -> Path:
    """Write a picture; with a palette the array holds its indices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if palette is None:
        image = Image.fromarray(array)
    else:
        image = Image.frombytes("P", array.shape[::-1], array.astype(np.uint8).tobytes())
        image.putpalette(palette)
    image.save(path)
    return path


def write_folders(root: Path, values: Sequence[int] = (0, 1, 2), count: int = 3) -> Path:
    """Write `images` and `masks` of equal names."""
    for number in range(count):
        save(photo(number), root / "images" / f"p{number}.png")
        save(index_mask(number, values), root / "masks" / f"p{number}.png")
    return root


def write_voc(root: Path, train: int = 3, val: int = 2) -> Path:
    """Write a VOC folder with classes 0, 5, 15 and 255 in each mask; return it."""
    folder = root / "VOCdevkit" / "VOC2012"
    for number in range(train + val):
        save(photo(number), folder / "JPEGImages" / f"2012_{number}.jpg")
        mask = index_mask(number, (0, 5, 15, 255))
        save(mask, folder / "SegmentationClass" / f"2012_{number}.png", bytes(range(256)) * 3)
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    names = [f"2012_{number}" for number in range(train + val)]
    (lists / "train.txt").write_text("\n".join(names[:train]) + "\n")
    (lists / "val.txt").write_text("\n".join(names[train:]) + "\n")
    (lists / "trainval.txt").write_text("\n".join(names) + "\n")
    return folder
