"""A NIfTI mask of each label."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.io import gzip
from medseg.io.atomic import atomic_path, output_errors
from medseg.io.label_parts import Box, file_stems, label_boxes, label_mask
from medseg.io.nifti import mask_header, write_nifti_mask
from medseg.volume import Label, Segmentation

SUFFIX = ".nii.gz"

_MOST_THREADS = 4


def write_label_niftis(
    segmentation: Segmentation, folder: Path, *, threads: int = _MOST_THREADS
) -> list[Path]:
    """Write a mask of each label: 1 in its voxels and 0 elsewhere, uint8, atomically.

    All lie on the grid of the segmentation, with the header that its own mask has. A region that
    others lie within is whole. A label without voxels gets a mask of zeros.

    Args:
        segmentation: Mask (I, J, K), or (rows, columns) in 2D.
        folder: Where the files go; made where there is none.
        threads: Files that are written at a time.

    Returns:
        The files, in the order of the labels: names as `file_stems` makes them.

    Raises:
        OutputError: If writing fails; what was complete before stays.
    """
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{stem}{SUFFIX}" for stem in file_stems(segmentation.labels)]
    parts = zip(segmentation.labels, label_boxes(segmentation), paths, strict=True)
    header = mask_header(segmentation)

    def write(part: tuple[Label, Box | None, Path]) -> None:
        label, box, path = part
        if segmentation.array.ndim == 2:
            _write_flat(segmentation, label, path)
            return
        inside = None if box is None else label_mask(segmentation, label, box)
        shape = segmentation.array.shape
        with atomic_path(path) as unfinished, gzip.open_write(unfinished, threads=0) as stream:
            stream.write(header)
            for piece in _pieces((shape[0], shape[1], shape[2]), box, inside):
                stream.write(piece)

    with ThreadPoolExecutor(threads, "labels") as pool:
        for _ in pool.map(write, parts):  # the first error leaves out the files not yet begun
            pass
    return paths


def _write_flat(segmentation: Segmentation, label: Label, path: Path) -> None:
    everywhere = tuple(slice(0, count) for count in segmentation.array.shape)
    array = label_mask(segmentation, label, everywhere).astype(np.uint8)
    write_nifti_mask(replace(segmentation, array=array, labels=()), path)


def _pieces(
    shape: tuple[int, int, int], box: Box | None, inside: npt.NDArray[np.bool_] | None
) -> Iterator[Any]:
    """Yield the voxels of a mask in the order of the file, first axis fastest."""
    plane = shape[0] * shape[1]
    if box is None or inside is None:
        yield from _zeros(plane * shape[2])
        return
    yield from _zeros(plane * box[2].start)
    slab = np.zeros((shape[1], shape[0]), np.uint8)
    for number in range(inside.shape[2]):
        slab[box[1], box[0]] = inside[..., number].T
        yield slab.data
    yield from _zeros(plane * (shape[2] - box[2].stop))


def _zeros(count: int) -> Iterator[memoryview]:
    block = memoryview(bytes(min(count, gzip.BLOCK_BYTES)))
    while count:
        piece = block[: min(count, len(block))]
        yield piece
        count -= len(piece)
