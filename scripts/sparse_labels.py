"""Train a network on sparse labels: a few clicks an image, spread by superpixels.

    python scripts/sparse_labels.py DATASET OUT [--clicks 5]
    medseg plan OUT/manifest.json -o BUNDLE
    medseg train BUNDLE --dataset OUT/manifest.json
    medseg segment OUT/test -b BUNDLE -o MASKS
    medseg evaluate MASKS OUT/test_labels --images OUT/test -o SCORES

DATASET is a labelled dataset of 2D images (see docs/datasets.md). Clicks are drawn from its labels
as a person would make them: in the middle of a few objects of each class, and somewhere in the
background. Each names the class of the superpixel that it falls into, errors of the superpixel
included; all other pixels are 255 and left out of the training. The cases of one fold of five keep
their whole labels and are not trained on.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medseg.classical import Slic
from medseg.data import make_folds, open_dataset
from medseg.io.masks import read_mask
from medseg.io.raster import write_palette_png, write_png
from medseg.io.read import read_channels
from medseg.volume import IGNORED, Volume

Mask = npt.NDArray[np.uint8]


def clicks_on(truth: Mask, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Return pixels that a person would click: the middles of objects, and of the background."""
    chosen = []
    for value in np.unique(truth):
        # how deep a pixel lies within its object; beyond the picture is nothing
        depth = ndimage.distance_transform_edt(np.pad(truth == value, 1))[1:-1, 1:-1]
        if value == 0:
            places = np.argwhere(depth > np.quantile(depth[depth > 0], 0.5))
            chosen += [tuple(place) for place in rng.permutation(places)[:count]]
            continue
        objects, found = ndimage.label(truth == value)
        for number in rng.permutation(found)[:count] + 1:
            inside = np.where(objects == number, depth, 0)
            chosen.append(np.unravel_index(int(inside.argmax()), inside.shape))
    return [(int(row), int(column)) for row, column in chosen]


def sparse(volume: Volume, truth: Mask, count: int, rng: np.random.Generator) -> Mask:
    """Return the labels that clicks give: classes where something was clicked, else 255."""
    regions = Slic(count=max(50, truth.size // 100))(volume).array
    label = np.full(truth.shape, IGNORED, np.uint8)
    for place in clicks_on(truth, count, rng):
        label[regions == regions[place]] = truth[place]
    return label


def main() -> None:
    """Write images, sparse labels, a manifest, and a fold that is kept whole."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clicks", type=int, default=5, help="in each class of each image")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    dataset = open_dataset(arguments.dataset)
    kept = set(make_folds(dataset.cases)["folds"][0]["validation"])
    rng = np.random.default_rng(arguments.seed)
    entries, counts = [], np.zeros(3, np.int64)
    for case in dataset.cases:
        volume = read_channels(case.images, channels=len(dataset.channels))
        values = read_mask(case.label).array[0]
        truth = np.zeros(values.shape, np.uint8)
        for number, structure in enumerate(dataset.structures, start=1):
            truth[np.isin(values, structure.values)] = number
        image = np.moveaxis(volume.array, 0, -1)
        image = image[..., 0] if image.shape[-1] == 1 else image
        name = f"{case.case_id}.png"
        if case.case_id in kept:
            write_png(image, arguments.out / "test" / name)
            write_palette_png(truth, (), arguments.out / "test_labels" / name)
            continue
        label = sparse(volume, truth, arguments.clicks, rng)
        given = label != IGNORED
        counts += (given.size, given.sum(), (label != truth)[given].sum())
        write_png(image, arguments.out / "images" / name)
        write_palette_png(label, (), arguments.out / "labels" / name)
        entries.append({"image": f"images/{name}", "label": f"labels/{name}"})
    document = {
        "name": f"sparse {dataset.name}",
        "channels": [{"name": c.name, "modality": c.modality} for c in dataset.channels],
        "labels": {s.name: number for number, s in enumerate(dataset.structures, start=1)},
        "ignored": [IGNORED],
        "cases": entries,
    }
    (arguments.out / "manifest.json").write_text(json.dumps(document, indent=1) + "\n")
    every, given, wrong = counts.tolist()
    print(
        f"{given / every:.2%} of the pixels are labelled, {wrong / max(1, given):.2%} of them wrong"
    )


if __name__ == "__main__":
    main()
