"""FCN: VGG16 as a fully convolutional network, at three resolutions of its answer."""

import torch
from torch import nn

from medseg.networks.parts import Parts
from medseg.networks.vgg16 import BASE_CHANNELS, Vgg16, convolution

HEAD_CHANNELS = 4096  # of fc6 and fc7 in VGG16
DROPOUT = 0.5
STAGES = {32: 0, 16: 1, 8: 2}  # stride of the answer to the number of poolings that join it


class Fcn(nn.Module):
    """VGG16 whose fully connected layers became convolutions, with skips from its poolings.

    Differs from the paper's program in its padding alone: the 7x7 convolution keeps the size in
    place of 100 pixels of zeros around the image and a crop.

    Args:
        in_channels: Of the image.
        out_channels: Classes.
        stride: 32, 16 or 8: FCN-32s, which enlarges the coarsest answer at once, FCN-16s,
            which joins it with that of the fourth pooling, or FCN-8s, also with the third's.
        batch_norm: Normalise in the encoder; the paper's does not, and starts from weights
            trained on ImageNet.
        base_channels: Of the encoder's first stage; 64 in the paper.
        head_channels: Of the two layers after the encoder; 4096 in the paper.

    Source:
        Long, Shelhamer and Darrell, Fully convolutional networks for semantic segmentation,
        CVPR 2015, sections 4.1 and 4.2: scores of the skips start at zero, inner enlargements
        start bilinear and learn, the last is bilinear and fixed.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        batch_norm: bool = True,
        base_channels: int = BASE_CHANNELS,
        head_channels: int = HEAD_CHANNELS,
    ) -> None:
        super().__init__()
        self.encoder = Vgg16(in_channels, base_channels, batch_norm=batch_norm)
        widths = self.encoder.widths
        self.fc6 = convolution(widths[-1], head_channels, 7)
        self.fc7 = convolution(head_channels, head_channels, 1)
        self.dropout = nn.Dropout(DROPOUT)
        self.score = nn.Conv2d(head_channels, out_channels, 1)
        skipped = [widths[3], widths[2]][: STAGES[stride]]
        self.joints = nn.ModuleList(Joint(width, out_channels) for width in skipped)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the network.

        Args:
            x: (B, C, H, W) image, H and W multiples of 32.

        Returns:
            (B, classes, H, W) logits.
        """
        pooled = self.encoder(x)
        features = self.dropout(torch.relu(self.fc6(pooled[4])))
        features = self.dropout(torch.relu(self.fc7(features)))
        scores: torch.Tensor = self.score(features)
        for number, joint in enumerate(self.joints):
            scores = joint(scores, pooled[3 - number])
        return nn.functional.interpolate(
            scores, size=x.shape[2:], mode="bilinear", align_corners=False
        )

    def names(self) -> dict[str, str]:
        """Match torchvision's files of weights, fully connected layers included.

        Returns:
            Key in a file of torchvision's `vgg16` or `vgg16_bn` to key of this module. The last
            layer of such a file, ImageNet's classes, has no place here.
        """
        names = {theirs: f"encoder.{ours}" for theirs, ours in self.encoder.names().items()}
        if self.fc6.out_channels == HEAD_CHANNELS:
            for theirs, ours in (("classifier.0", "fc6"), ("classifier.3", "fc7")):
                names |= {f"{theirs}.{kind}": f"{ours}.{kind}" for kind in ("weight", "bias")}
        return names


class Joint(nn.Module):
    """Double the size of coarse scores and add those of a pooling.

    Args:
        width: Channels of the pooling.
        classes: Channels of the scores.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(classes, classes, 4, stride=2, padding=1, bias=False)
        self.score = nn.Conv2d(width, classes, 1)
        line = torch.tensor([0.25, 0.75, 0.75, 0.25])  # bilinear, of twice the size
        with torch.no_grad():
            self.enlarge.weight.zero_()
            for number in range(classes):
                self.enlarge.weight[number, number] = torch.outer(line, line)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)  # type: ignore[arg-type]  # it has one

    def forward(self, coarse: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Join two resolutions.

        Args:
            coarse: (B, classes, H, W) scores.
            pooled: (B, width, 2 H, 2 W) features.

        Returns:
            (B, classes, 2 H, 2 W) scores.
        """
        joined: torch.Tensor = self.enlarge(coarse) + self.score(pooled)
        return joined


def fcn(
    in_channels: int,
    out_channels: int,
    encoder: str,
    *,
    stride: int,
    base_channels: int = BASE_CHANNELS,
    head_channels: int = HEAD_CHANNELS,
) -> Parts:
    """Build an FCN for the table; arguments are those of `Fcn`, `encoder` vgg16 or vgg16_bn."""
    network = Fcn(
        in_channels,
        out_channels,
        stride,
        batch_norm=encoder == "vgg16_bn",
        base_channels=base_channels,
        head_channels=head_channels,
    )
    return Parts(network, stride=32, encoder=network, names=network.names())
