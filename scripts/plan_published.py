"""Plan the bundles for public CT datasets from the numbers published about them.

    python scripts/plan_published.py bundles

The images themselves are not needed: spacing, median size, number of cases and foreground
intensities of the Medical Segmentation Decathlon are those that nnU-Net's authors published with
their plans (Isensee et al., Nature Methods 2021). From there on it is `medseg plan`.
"""

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.bundle.write import write_bundle
from medseg.data import Channel, LabelledDataset, Structure
from medseg.io.atomic import write_json
from medseg.planning import Fingerprint, make_plan
from medseg.planning.fingerprint import CaseFingerprint
from medseg.planning.network import Network

REFERENCES = (
    "A. L. Simpson et al., A large annotated medical image dataset for the development and"
    " evaluation of segmentation algorithms, arXiv:1902.09063 (2019)",
    "M. Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13, 4128 "
    "(2022)",
)


@dataclass(frozen=True)
class Published:
    """What was published about a dataset; axes right-left, front-back, head-foot."""

    name: str
    task: str
    source: str
    structures: tuple[str, ...]
    spacing_mm: tuple[float, float, float]
    median_shape: tuple[int, int, int]
    cases: int
    clip_hu: tuple[float, float]
    mean_std_hu: tuple[float, float]
    network: Network = "dynunet"


DATASETS = (
    Published(
        "spleen_ct",
        "segmentation of the spleen in abdominal CT",
        "Medical Segmentation Decathlon, Task09 Spleen (Memorial Sloan Kettering Cancer Center)",
        ("spleen",),
        (0.79, 0.79, 1.6),
        (512, 512, 187),
        41,
        (-41.0, 176.0),
        (99.29, 39.47),
        network="unet",
    ),
    Published(
        "liver_tumour_ct",
        "segmentation of the liver and its tumours in abdominal CT",
        "Medical Segmentation Decathlon, Task03 Liver (LiTS, IRCAD Strasbourg and others)",
        ("liver", "tumour"),
        (0.7676, 0.7676, 1.0),
        (512, 512, 482),
        131,
        (-17.0, 201.0),
        (99.40, 39.36),
    ),
    Published(
        "lung_tumour_ct",
        "segmentation of lung tumours in chest CT",
        "Medical Segmentation Decathlon, Task06 Lung (The Cancer Imaging Archive)",
        ("tumour",),
        (0.79, 0.79, 1.24),
        (512, 512, 252),
        63,
        (-1024.0, 325.0),
        (-158.58, 324.70),
    ),
)


def write(entry: Published, folder: Path) -> Path:
    """Plan and write one bundle."""
    statistics = {
        "mean": entry.mean_std_hu[0],
        "std": entry.mean_std_hu[1],
        "p00_5": entry.clip_hu[0],
        "p99_5": entry.clip_hu[1],
    }
    case = CaseFingerprint(
        "median",
        entry.spacing_mm,
        entry.median_shape,
        entry.median_shape,
        (0,) * len(entry.structures),
    )
    dataset = LabelledDataset(
        root=folder,
        kind="msd",
        name=entry.source,
        channels=(Channel("CT", "CT"),),
        structures=tuple(Structure(n, (v,)) for v, n in enumerate(entry.structures, start=1)),
        cases=(),
    )
    plan = make_plan(
        dataset,
        Fingerprint((case,) * entry.cases, (statistics,), entry.structures),
        name=entry.name,
        network=entry.network,
    )
    spec = replace(plan.spec, task=entry.task, min_slices=16, fixed_splits=False)
    document = plan.as_json()
    document["fingerprint"] = {
        "source": "medians and foreground intensities as published with nnU-Net's plans",
        "spacing_mm": list(entry.spacing_mm),
        "median_shape": list(entry.median_shape),
        "cases": entry.cases,
        "intensities": [statistics],
    }
    bundle = write_bundle(spec, folder / entry.name, plan=document, splits=None, overwrite=True)
    path = bundle / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata |= {
        "authors": "medseg maintainers",
        "copyright": "Copyright (c) medseg maintainers",
        "references": [*REFERENCES, *metadata["references"]],
    }
    metadata["medseg"]["input"] |= {"max_spacing_mm": 6.0}
    metadata["medseg"]["licence"] = "Apache-2.0 (configuration); no weights are shipped"
    write_json(path, metadata)
    return bundle


def main() -> None:
    """Write all bundles into a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    for entry in DATASETS:
        print(write(entry, parser.parse_args().folder))


if __name__ == "__main__":
    main()
