"""Write the bundles for public sets of pictures from what was published about them.

    python scripts/plan_pictures.py bundles

Classes, sizes and colours are those of the data sets' authors; networks and augmentation are
medseg's own choices for them. The images are not needed.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.bundle.spec import BundleSpec
from medseg.bundle.write import write_bundle
from medseg.io.atomic import write_json
from medseg.io.raster import voc_colors
from medseg.planning.normalization import photograph_schemes

RGB = (("red", "RGB"), ("green", "RGB"), ("blue", "RGB"))
TABLE = {
    "_target_": "medseg.networks.build_network",
    "name": "@network_name",
    "in_channels": 3,
    "out_channels": "@num_classes",
    "encoder": "@encoder",
    "encoder_weights": "@encoder_weights",
}
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
VOC_COLORS = {
    name: (int(red), int(green), int(blue))
    for name, (red, green, blue) in zip(VOC_CLASSES, voc_colors(21)[1:], strict=True)
}
CAMVID_COLORS = {
    "Building": (128, 0, 0), "Pole": (192, 192, 128), "Road": (128, 64, 128),
    "Pavement": (60, 40, 222), "Tree": (128, 128, 0), "SignSymbol": (192, 128, 128),
    "Fence": (64, 64, 128), "Car": (64, 0, 128), "Pedestrian": (64, 64, 0),
    "Bicyclist": (0, 128, 192),
}  # fmt: skip


def unet(channels: int, filters: Sequence[int], levels: int) -> dict[str, Any]:
    """Return a 2D U-Net with instance normalisation, supervised at several levels."""
    below = len(filters) - 1
    return {
        "_target_": "medseg.networks.DynUNet",
        "spatial_dims": 2,
        "in_channels": channels,
        "out_channels": "@num_classes",
        "kernel_size": [[3, 3]] * (below + 1),
        "strides": [[1, 1], *[[2, 2]] * below],
        "upsample_kernel_size": [[2, 2]] * below,
        "filters": list(filters),
        "norm_name": ["INSTANCE", {"affine": True}],
        "deep_supervision": "@deep_supervision",
        "deep_supr_num": levels,
    }


def mask_rcnn(levels: int, anchors: Sequence[int], most: int, **settings: Any) -> dict[str, Any]:
    """Return a Mask R-CNN with an encoder of 18 layers that learns from random weights."""
    return {
        "_target_": "medseg.networks.MaskRcnn",
        "in_channels": 3,
        "num_classes": "@num_classes",
        "encoder": "resnet18",
        "levels": levels,
        "norm": "group",
        "channels": 128,
        "box_features": 512,
        "anchor_sizes": [[size] for size in anchors],
        "training_boxes": 128,
        "most_objects": most,
        **settings,
    }


PHOTOGRAPHS = [scheme for scheme, _ in photograph_schemes()]
ZSCORE = {"scheme": "zscore", "nonzero": False}
SPECS = (
    BundleSpec(
        name="voc_semantic",
        task="semantic segmentation of the 20 classes of PASCAL VOC in photographs",
        dataset="PASCAL VOC 2012, segmentation",
        image_channels=RGB,
        labels=[(name, (value,)) for value, name in enumerate(VOC_CLASSES, start=1)],
        in_pixels=True,
        spacing=(1.0, 1.0),
        patch_size=(512, 512),
        batch_size=8,
        network_def=TABLE,
        network_name="deeplabv3plus",
        schemes=PHOTOGRAPHS,
        epochs=120,
        fixed_splits=False,
        ignored=(255,),
        photographs=True,
        colors=VOC_COLORS,
    ),
    BundleSpec(
        name="camvid_semantic",
        task="semantic segmentation of street scenes into 11 classes",
        dataset="CamVid, 360 x 480, 11 classes as in the SegNet tutorial",
        image_channels=RGB,
        labels=[(name, (value,)) for value, name in enumerate(CAMVID_COLORS, start=1)],
        in_pixels=True,
        spacing=(1.0, 1.0),
        patch_size=(352, 480),
        batch_size=4,
        network_def=TABLE,
        network_name="unet_resnet",
        schemes=PHOTOGRAPHS,
        epochs=80,
        fixed_splits=False,
        ignored=(11,),
        first_class="Sky",
        photographs=True,
        colors=CAMVID_COLORS,
    ),
    BundleSpec(
        name="em_membrane",
        task="segmentation of cell membranes in electron micrographs",
        dataset="ISBI 2012 EM segmentation challenge (Drosophila ventral nerve cord, ssTEM)",
        image_channels=(("EM", "OT"),),
        labels=[("membrane", (1,))],
        colors={"membrane": (255, 225, 25)},
        in_pixels=True,
        spacing=(1.0, 1.0),
        patch_size=(256, 256),
        batch_size=8,
        network_def=unet(1, (32, 64, 128, 256, 256), 2),
        schemes=[ZSCORE],
        epochs=40,
        fixed_splits=False,
    ),
    BundleSpec(
        name="nuclei_semantic",
        task="segmentation of cell nuclei in fluorescence and stained micrographs",
        dataset="2018 Data Science Bowl (BBBC038), CC0 1.0",
        image_channels=RGB,
        labels=[("nucleus", (1,))],
        colors={"nucleus": (0, 200, 255)},
        in_pixels=True,
        spacing=(1.0, 1.0),
        patch_size=(256, 256),
        batch_size=8,
        network_def=unet(3, (16, 32, 64, 128, 256), 2),
        schemes=[ZSCORE] * 3,
        epochs=40,
        fixed_splits=False,
    ),
    BundleSpec(
        name="nuclei_instances",
        task="instance segmentation of cell nuclei in fluorescence and stained micrographs",
        dataset="2018 Data Science Bowl (BBBC038), CC0 1.0",
        image_channels=RGB,
        labels=[("nucleus", (1,))],
        colors={"nucleus": (0, 200, 255)},
        in_pixels=True,
        spacing=(0.8, 0.8),
        patch_size=(320, 320),
        batch_size=4,
        network_def=mask_rcnn(3, (9, 18, 36, 72), 700),
        schemes=[ZSCORE] * 3,
        epochs=40,
        fixed_splits=False,
        objects=True,
    ),
    BundleSpec(
        name="voc_instances",
        task="instance segmentation of the 20 classes of PASCAL VOC in photographs",
        dataset="PASCAL VOC 2012, SegmentationObject",
        image_channels=RGB,
        labels=[(name, (value,)) for value, name in enumerate(VOC_CLASSES, start=1)],
        in_pixels=True,
        spacing=(1.0, 1.0),
        patch_size=(512, 512),
        batch_size=8,
        network_def=mask_rcnn(
            4,
            (32, 64, 128, 256, 512),
            100,
            encoder="resnet50",
            norm="frozen",
            channels=256,
            box_features=1024,
            training_boxes=512,
        ),
        schemes=PHOTOGRAPHS,
        epochs=120,
        fixed_splits=False,
        photographs=True,
        colors=VOC_COLORS,
        objects=True,
    ),
)
REFERENCES = {
    "voc_semantic": (
        "M. Everingham et al., The PASCAL Visual Object Classes challenge: a retrospective,"
        " International Journal of Computer Vision 111, 98-136 (2015)",
        "L.-C. Chen et al., Encoder-decoder with atrous separable convolution for semantic image"
        " segmentation, ECCV 2018",
    ),
    "camvid_semantic": (
        "G. J. Brostow, J. Fauqueur, R. Cipolla, Semantic object classes in video: a"
        " high-definition ground truth database, Pattern Recognition Letters 30(2) (2009)",
        "V. Badrinarayanan, A. Kendall, R. Cipolla, SegNet, IEEE PAMI 39(12) (2017)",
    ),
    "em_membrane": (
        "I. Arganda-Carreras et al., Crowdsourcing the creation of image segmentation algorithms"
        " for connectomics, Frontiers in Neuroanatomy 9 (2015)",
    ),
    "nuclei_semantic": (
        "J. C. Caicedo et al., Nucleus segmentation across imaging experiments: the 2018 Data"
        " Science Bowl, Nature Methods 16 (2019)",
    ),
}
MASK_RCNN = ("K. He, G. Gkioxari, P. Dollar, R. Girshick, Mask R-CNN, ICCV 2017",)
REFERENCES |= {
    "nuclei_instances": (*REFERENCES["nuclei_semantic"], *MASK_RCNN),
    "voc_instances": (REFERENCES["voc_semantic"][0], *MASK_RCNN),
}


CARDS = Path(__file__).parent / "cards"
"""Sections of cards, before the commands, by the bundle's name."""

SCORES = {
    "nuclei_semantic": {
        "mean_iou": 0.829,
        "mean_dice": 0.901,
        "iou_of_all_pixels": 0.816,
        "validation_cases": 37,
    },
    "nuclei_instances": {
        "mask_ap50": 0.807,
        "mask_ap": 0.496,
        "pq": 0.663,
        "aji": 0.704,
        "validation_cases": 37,
    },
}
"""Of the bundles that have weights."""
UNTRAINED = "**Without trained weights:** this card claims no score.\n\n"
PLANNED = "`configs/plan.json` says which rule and which numbers are behind each choice."
CHOSEN = "Network, patch and augmentation were chosen by hand, not planned from the images."


def write(spec: BundleSpec, folder: Path) -> Path:
    """Write one bundle."""
    plan = {"schema": 1, "source": "scripts/plan_pictures.py"}
    trained = spec.name in SCORES
    kept = [folder / spec.name / name for name in ("models/model.pt", "configs/splits.json")]
    contents = {path: path.read_bytes() for path in kept if trained}
    bundle = write_bundle(spec, folder / spec.name, plan=plan, splits=None, overwrite=True)
    for path, content in contents.items():
        path.write_bytes(content)
    card = bundle / "docs" / "README.md"
    text = card.read_text(encoding="utf-8")
    text = text.replace(PLANNED, CHOSEN)
    if trained:
        text = text.replace(UNTRAINED, "")
        shutil.copyfile(CARDS / f"{spec.name}.LICENSE", bundle / "LICENSE")
    notes = CARDS / f"{spec.name}.md"
    if notes.is_file():
        section = notes.read_text(encoding="utf-8")
        if "## Scores" in section:
            text = text.replace(UNTRAINED, "")
        text = text.replace("## Commands", f"{section}\n## Commands")
    card.write_text(text, encoding="utf-8")
    path = bundle / "configs" / "metadata.json"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    metadata |= {
        "authors": "medseg maintainers",
        "copyright": "Copyright (c) medseg maintainers",
        "references": [*REFERENCES[spec.name], *metadata["references"]],
    }
    metadata["medseg"]["licence"] = "Apache-2.0 (configuration); no weights are shipped"
    if trained:
        metadata["medseg"]["licence"] = "Apache-2.0; trained on CC0-1.0 data"
        metadata["eval_metrics"] = SCORES[spec.name]
        metadata["changelog"] = {"0.1.0": "planned by hand, trained by medseg train"}
    write_json(path, metadata)
    return bundle


def main() -> None:
    """Write all bundles into a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default=",".join(spec.name for spec in SPECS))
    arguments = parser.parse_args()
    for spec in SPECS:
        if spec.name in arguments.only.split(","):
            print(write(spec, arguments.folder))


if __name__ == "__main__":
    main()
