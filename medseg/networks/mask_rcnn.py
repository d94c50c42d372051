"""Mask R-CNN of torchvision, for any channels, classes and sizes of objects."""

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torchvision.models import mobilenet_v3_large, resnet18, resnet34, resnet50
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from medseg.errors import UsageError
from medseg.networks.encoder_weights import load_encoder_weights
from medseg.networks.parts import set_in_channels

Norm = Literal["group", "frozen"]
Target = Mapping[str, torch.Tensor]

RESNETS = {"resnet18": resnet18, "resnet34": resnet34, "resnet50": resnet50}
MOBILE = "mobilenet_v3_large"
ENCODERS = (*RESNETS, MOBILE)

LARGEST_STRIDE = 32
PROPOSALS = 2000
"""Boxes of one image that may be objects while training, in the paper."""
GROUP_CHANNELS = 8
"""Channels a group of group normalisation."""

BOXES_AT_ONCE = 64
"""Boxes whose masks are made together in evaluation."""

BOX_CELLS, MASK_CELLS = 7, 14
"""Cells along an edge that a box is seen through; its mask has twice as many as the latter."""


class MaskRcnn(MaskRCNN):  # type: ignore[misc]  # torchvision is untyped
    """Find, classify and outline each object of an image.

    Images are taken as they come, neither resized nor normalised: both belong to the preprocessing
    of a bundle, where inference and training agree on them. Any size will do.

    Args:
        in_channels: Of the image.
        num_classes: Classes, background (0) included.
        encoder: `resnet18`, `resnet34`, `resnet50` or `mobilenet_v3_large`.
        levels: Stages of the encoder that are used, from strides of 4 pixels on; 4 are all, fewer
            make a smaller network for small objects.
        norm: Of the encoder: `group` normalises groups of channels and needs no large batch, for
            training from scratch; `frozen` keeps the mean and variance of published weights.
        channels: Of the feature pyramid and of the mask head; 256 in the paper.
        box_features: Of the two layers that classify a box; 1024 in the paper.
        mask_layers: Convolutions of the mask head; 4 in the paper.
        anchor_sizes: For each level, and for one more of twice the stride, edges of the squares
            that boxes are measured from; pixels.
        aspect_ratios: Of height to width of the boxes.
        training_boxes: Of one image that the heads learn from in an iteration, a quarter of them
            objects at most; 512 in the paper. RoIAlign's gradient is what a processor waits for.
        most_objects: That are found in one image.
        encoder_weights: Local file of a state dict of the encoder, or `imagenet`, as
            `build_network` takes it; with `norm: frozen` alone.
        least_score: Objects of a lower score are left out.
        box_overlap: IoU of boxes from which on the less sure of two of a class is left out.

    Raises:
        UsageError: If an argument is none that there is.
        BundleError: If the encoder's weights cannot be read or do not fit.

    Source:
        He et al., Mask R-CNN, ICCV 2017; Lin et al., Feature pyramid networks, CVPR 2017; Wu and
        He, Group normalization, ECCV 2018; torchvision's modules.

    Examples:
        >>> network = MaskRcnn(1, 2, levels=2, channels=16, box_features=8,
        ...                    anchor_sizes=[[8], [16], [32]]).eval()
        >>> with torch.no_grad():
        ...     [found] = network(torch.zeros(1, 1, 37, 50))
        >>> sorted(found)
        ['boxes', 'labels', 'masks', 'scores']
    """

    def __init__(  # noqa: PLR0913  # one argument a setting of a bundle
        self,
        in_channels: int,
        num_classes: int,
        *,
        encoder: str = "resnet18",
        levels: int = 4,
        norm: Norm = "group",
        channels: int = 256,
        box_features: int = 1024,
        mask_layers: int = 4,
        anchor_sizes: Sequence[Sequence[float]] = ((32,), (64,), (128,), (256,), (512,)),
        aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        training_boxes: int = 512,
        most_objects: int = 300,
        encoder_weights: str | os.PathLike[str] | None = None,
        least_score: float = 0.05,
        box_overlap: float = 0.5,
    ) -> None:
        _check(in_channels, num_classes, levels, training_boxes, anchor_sizes)
        names = [str(level) for level in range(levels)]
        backbone = _backbone(encoder, levels, norm, in_channels, channels, encoder_weights)
        super().__init__(
            backbone,
            rpn_anchor_generator=AnchorGenerator(
                tuple(tuple(map(float, sizes)) for sizes in anchor_sizes),
                (tuple(map(float, aspect_ratios)),) * len(anchor_sizes),
            ),
            rpn_pre_nms_top_n_train=min(PROPOSALS, max(1000, 4 * training_boxes)),
            rpn_post_nms_top_n_train=min(PROPOSALS, 4 * training_boxes),
            rpn_pre_nms_top_n_test=max(1000, 2 * most_objects),
            rpn_post_nms_top_n_test=max(1000, 2 * most_objects),
            box_roi_pool=MultiScaleRoIAlign(names, output_size=BOX_CELLS, sampling_ratio=2),
            box_head=TwoMLPHead(channels * BOX_CELLS**2, box_features),
            box_predictor=FastRCNNPredictor(box_features, num_classes),
            box_score_thresh=least_score,
            box_nms_thresh=box_overlap,
            box_detections_per_img=most_objects,
            box_batch_size_per_image=training_boxes,
            mask_roi_pool=MultiScaleRoIAlign(names, output_size=MASK_CELLS, sampling_ratio=2),
            mask_head=_MaskHead(channels, [channels] * mask_layers, dilation=1),
            mask_predictor=_MaskPredictor(channels, channels, num_classes),
        )
        self.most_objects = most_objects
        self.transform = _AsTheyAre()
        # under autocast places would be rounded to 8 bits: boxes of no width, and losses of NaN
        parts = (self.backbone, self.rpn.head, self.roi_heads.box_predictor)
        for part in (*parts, self.roi_heads.mask_predictor):
            part.register_forward_hook(_in_float32)

    def forward(
        self, images: torch.Tensor | list[torch.Tensor], targets: Sequence[Target] | None = None
    ) -> dict[str, torch.Tensor] | list[dict[str, torch.Tensor]]:
        """Compute the losses while training, else find objects.

        Args:
            images: (B, C, H, W), or (C, H, W) each of any size; float.
            targets: For training, of each image `boxes` (N, 4) float x0, y0, x1, y1 in pixels,
                `labels` (N,) int64 from 1 on and `masks` (N, H, W) uint8; N may be 0.

        Returns:
            While training the losses by name. Else for each image `boxes` (N, 4) as above,
            `labels` (N,), `scores` (N,) falling, and `masks` (N, 1, 28, 28): the probability of
            the object over its box, which `paste` of `medseg.inference` lays out.
        """
        found: dict[str, torch.Tensor] | list[dict[str, torch.Tensor]] = super().forward(
            list(images), None if targets is None else [dict(target) for target in targets]
        )
        return found


def _in_float32(_: nn.Module, __: Any, output: Any) -> Any:
    if isinstance(output, torch.Tensor):
        return output.float()
    if isinstance(output, Mapping):
        return OrderedDict((key, _in_float32(_, __, value)) for key, value in output.items())
    return type(output)(_in_float32(_, __, value) for value in output)


class _MaskHead(MaskRCNNHeads):  # type: ignore[misc]  # torchvision is untyped
    """The convolutions over what each box shows, of a few boxes at a time in evaluation."""

    def forward(self, shown: torch.Tensor) -> torch.Tensor:
        return _in_parts(super().forward, shown, whole=self.training)


class _MaskPredictor(MaskRCNNPredictor):  # type: ignore[misc]  # torchvision is untyped
    """From there to masks; at twice the cells, a thousand boxes at once would be a gigabyte."""

    def forward(self, shown: torch.Tensor) -> torch.Tensor:
        return _in_parts(super().forward, shown, whole=self.training)


def _in_parts(
    layer: Callable[[torch.Tensor], torch.Tensor], shown: torch.Tensor, *, whole: bool
) -> torch.Tensor:
    if whole or len(shown) <= BOXES_AT_ONCE:
        return layer(shown)
    return torch.cat([layer(part) for part in torch.split(shown, BOXES_AT_ONCE)])


class _AsTheyAre(GeneralizedRCNNTransform):  # type: ignore[misc]  # torchvision is untyped
    """Pad images to one size, and do nothing else to them."""

    def __init__(self) -> None:
        super().__init__(1, 1, [0.0], [1.0], size_divisible=LARGEST_STRIDE)

    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        return image

    def resize(
        self, image: torch.Tensor, target: dict[str, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor] | None]:
        return image, target

    def postprocess(
        self,
        result: list[dict[str, torch.Tensor]],
        image_shapes: list[tuple[int, int]],  # noqa: ARG002  # torchvision's signature
        original_image_sizes: list[tuple[int, int]],  # noqa: ARG002
    ) -> list[dict[str, torch.Tensor]]:
        return result


def _check(
    in_channels: int,
    num_classes: int,
    levels: int,
    training_boxes: int,
    anchor_sizes: Sequence[Sequence[float]],
) -> None:
    rules = (
        ("in_channels must be at least 1", in_channels, in_channels >= 1),
        ("num_classes must be at least 2, background included", num_classes, num_classes >= 2),
        ("levels must be from 1 to 4", levels, 1 <= levels <= 4),
        ("training_boxes must be at least 4", training_boxes, training_boxes >= 4),
        (
            f"anchor_sizes must be {levels + 1} lists, one a level and one more",
            len(anchor_sizes),
            len(anchor_sizes) == levels + 1,
        ),
        (
            "anchor_sizes must be equally many and above 0 on each level",
            anchor_sizes,
            len({len(sizes) for sizes in anchor_sizes}) == 1
            and all(size > 0 for sizes in anchor_sizes for size in sizes),
        ),
    )
    for rule, value, holds in rules:
        if not holds:
            msg = f"{rule}, got {value!r}."
            raise UsageError(msg)


def _backbone(
    encoder: str,
    levels: int,
    norm: Norm,
    in_channels: int,
    channels: int,
    weights: str | os.PathLike[str] | None,
) -> BackboneWithFPN:
    if encoder not in ENCODERS:
        msg = f"encoder must be among {', '.join(ENCODERS)}, got {encoder!r}."
        raise UsageError(msg)
    if norm not in ("group", "frozen"):
        msg = f"norm must be group or frozen, got {norm!r}."
        raise UsageError(msg)
    if weights is not None and norm != "frozen":
        msg = "norm must be frozen where encoder_weights are given, got 'group'."
        raise UsageError(msg)
    layer: Callable[..., nn.Module] = _groups if norm == "group" else FrozenBatchNorm2d
    if encoder == MOBILE:
        whole = mobilenet_v3_large(weights=None, norm_layer=layer)
        stages = [i for i, part in enumerate(whole.features) if getattr(part, "_is_cn", False)]
        stages = [*stages[1:], len(whole.features) - 1]  # strides of 4, 8, 16 and 32
        first, body = "features.0.0", whole.features
        names = [str(stage) for stage in stages]
        widths = [_width(whole.features[stage]) for stage in stages]
    else:
        whole = RESNETS[encoder](weights=None, norm_layer=layer)
        first, body = "conv1", whole
        names = [f"layer{number}" for number in range(1, 5)]
        widths = [whole.inplanes // 2**number for number in (3, 2, 1, 0)]
    set_in_channels(whole, first, in_channels)
    if weights is not None:
        load_encoder_weights(whole, weights, architecture=encoder)
    returned = {name: str(number) for number, name in enumerate(names[:levels])}
    return BackboneWithFPN(
        body,
        returned,
        widths[:levels],
        channels,
        norm_layer=_groups if norm == "group" else None,
    )


def _groups(channels: int, **_: Any) -> nn.Module:
    """Normalise groups of channels; as many groups as divide them."""
    groups = max(1, channels // GROUP_CHANNELS)
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels)


def _width(stage: nn.Module) -> int:
    last = [part for part in stage.modules() if isinstance(part, nn.Conv2d)][-1]
    return last.out_channels
