"""Mask R-CNN by hand, as torchvision's reference does it: the loop that medseg is measured against.

    python scripts/bench/objects_loop.py train IMAGES MASKS SPLITS OUT.pt --cpu-minutes 60
    python scripts/bench/objects_loop.py find IMAGES OUT.pt FOUND.json [--only STEMS]

Public calls of torchvision and PIL alone: the same network as `nuclei_instances` (ResNet-18 with
group normalisation, three levels, anchors of 9 to 72 pixels), images 1.25 times enlarged, flipped
left and right, SGD with the learning rate that the reference has for this batch size (0.02 for 16
images), a thousand iterations of warm-up and two steps down. Training ends when the process has
used its minutes of processor time. MASKS hold object numbers; SPLITS is a bundle's splits.json.
"""

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as run_lengths
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign, masks_to_boxes
from torchvision.transforms.functional import hflip, resize, to_tensor
from torchvision.transforms.v2 import InterpolationMode

ENLARGED = 1.25
BATCH = 4
LEARNING_RATE = 0.02 * BATCH / 16
WARM_UP = 1000
STEPS = (16 / 26, 22 / 26)
"""Shares of the time after which the learning rate falls to a tenth."""


def network(training_boxes: int = 128, most_objects: int = 700) -> MaskRCNN:
    """Build the network of `nuclei_instances`; names and shapes of its weights are the same."""

    def groups(channels: int) -> nn.GroupNorm:
        return nn.GroupNorm(channels // 8, channels)

    layers = {f"layer{number}": str(number - 1) for number in (1, 2, 3)}
    names = list(layers.values())
    model = MaskRCNN(
        BackboneWithFPN(
            resnet18(weights=None, norm_layer=groups), layers, [64, 128, 256], 128,
            norm_layer=groups,
        ),
        rpn_anchor_generator=AnchorGenerator(
            ((9,), (18,), (36,), (72,)), ((0.5, 1.0, 2.0),) * 4
        ),
        rpn_pre_nms_top_n_train=1000,
        rpn_post_nms_top_n_train=512,
        rpn_pre_nms_top_n_test=2 * most_objects,
        rpn_post_nms_top_n_test=2 * most_objects,
        box_roi_pool=MultiScaleRoIAlign(names, output_size=7, sampling_ratio=2),
        box_head=TwoMLPHead(128 * 49, 512),
        box_predictor=FastRCNNPredictor(512, 2),
        box_detections_per_img=most_objects,
        box_batch_size_per_image=training_boxes,
        mask_roi_pool=MultiScaleRoIAlign(names, output_size=14, sampling_ratio=2),
        mask_head=MaskRCNNHeads(128, [128] * 4, dilation=1),
        mask_predictor=MaskRCNNPredictor(128, 128, 2),
    )  # fmt: skip
    # images are enlarged as they are loaded, and all by the same factor
    model.transform.resize = lambda image, target=None: (image, target)
    return model


def image_of(path: Path) -> tuple[torch.Tensor, tuple[int, int]]:
    """Return an image, enlarged, and its own rows and columns."""
    image = to_tensor(Image.open(path).convert("RGB"))
    rows, columns = image.shape[1:]
    return resize(image, _enlarged(rows, columns), antialias=True), (rows, columns)


def _enlarged(rows: int, columns: int) -> list[int]:
    return [round(ENLARGED * rows), round(ENLARGED * columns)]


class Objects(torch.utils.data.Dataset[Any]):
    """Images with boxes, classes and masks, as torchvision's tutorial makes them."""

    def __init__(self, images: Path, masks: Path, stems: list[str]) -> None:
        self.files = [(images / f"{stem}.png", masks / f"{stem}.png") for stem in stems]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return an image, flipped or not, and its target."""
        image, _ = image_of(self.files[index][0])
        numbers = torch.from_numpy(np.asarray(Image.open(self.files[index][1])).astype(np.int32))
        numbers = resize(
            numbers[None], list(image.shape[1:]), interpolation=InterpolationMode.NEAREST
        )[0]
        if random.random() < 0.5:
            image, numbers = hflip(image), hflip(numbers)
        ids = torch.unique(numbers)
        masks = numbers == ids[ids > 0][:, None, None]
        boxes = masks_to_boxes(masks) if len(masks) else torch.zeros(0, 4)
        kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        target = {
            "boxes": boxes[kept],
            "labels": torch.ones(int(kept.sum()), dtype=torch.int64),
            "masks": masks[kept].to(torch.uint8),
        }
        return image, target


def collate(batch: list[Any]) -> tuple[Any, ...]:
    """Keep images of different sizes in a list."""
    return tuple(zip(*batch, strict=True))


def train(args: argparse.Namespace) -> None:
    """Train until the processor time is used up."""
    torch.manual_seed(0)
    random.seed(0)
    stems = json.loads(args.splits.read_text())["folds"][0]["training"]
    loader = torch.utils.data.DataLoader(
        Objects(args.images, args.masks, stems), BATCH, shuffle=True, collate_fn=collate
    )
    model = network().train()
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=LEARNING_RATE, momentum=0.9, weight_decay=1e-4)
    iteration, started = 0, time.perf_counter()
    while (share := time.process_time() / 60 / args.cpu_minutes) < 1:
        for images, targets in loader:
            share = time.process_time() / 60 / args.cpu_minutes
            if share >= 1:
                break
            rate = LEARNING_RATE * min(1.0, (iteration + 1) / WARM_UP)
            rate *= 0.1 ** sum(share >= step for step in STEPS)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = sum(model(list(images), list(targets)).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            iteration += 1
            if iteration % 50 == 0:
                print(f"{share:.1%} it {iteration} loss {loss.item():.3f}", flush=True)
    spent = {
        "iterations": iteration,
        "cpu_minutes": round(time.process_time() / 60, 1),
        "minutes": round((time.perf_counter() - started) / 60, 1),
    }
    torch.save(model.state_dict(), args.weights)
    args.weights.with_suffix(".json").write_text(json.dumps(spent))
    print(spent)


@torch.no_grad()
def objects_of(model: MaskRCNN, path: Path) -> dict[str, Any]:
    """Find the objects of one image; masks are dense, and coded at the end as COCO's tools do."""
    image, (rows, columns) = image_of(path)
    [found] = model([image])
    masks = found["masks"][:, 0]
    if len(masks):
        masks = resize(masks, [rows, columns], antialias=False)
    coded = [run_lengths.encode(np.asfortranarray(m)) for m in (masks > 0.5).byte().numpy()]
    return {
        "image": path.name,
        "size": [rows, columns],
        "counts": [one["counts"].decode("ascii") for one in coded],
        "scores": found["scores"].tolist(),
    }


def find(args: argparse.Namespace) -> None:
    """Find the objects of a folder of images, and say how long it took."""
    model = network()
    model.load_state_dict(torch.load(args.weights, weights_only=True))
    model.eval()
    files = sorted(args.images.glob("*.png"))
    started = time.perf_counter()
    found = [objects_of(model, path) for path in files]
    seconds = time.perf_counter() - started
    args.found.write_text(json.dumps({"seconds": seconds, "images": found}))
    print(f"{len(files)} images, {len(files) / seconds:.2f} images/s")


def main() -> None:
    """Train or find."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("train")
    command.add_argument("images", type=Path)
    command.add_argument("masks", type=Path)
    command.add_argument("splits", type=Path)
    command.add_argument("weights", type=Path)
    command.add_argument("--cpu-minutes", type=float, required=True)
    command.set_defaults(run=train)
    command = commands.add_parser("find")
    command.add_argument("images", type=Path)
    command.add_argument("weights", type=Path)
    command.add_argument("found", type=Path)
    command.set_defaults(run=find)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
