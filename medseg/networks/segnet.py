"""SegNet: an encoder that remembers where each maximum was, and a decoder that puts it back."""

import torch
from torch import nn

from medseg.networks.parts import Parts
from medseg.networks.vgg16 import BASE_CHANNELS, CONVOLUTIONS, Vgg16, stage


class SegNet(nn.Module):
    """VGG16 with batch normalisation, and its mirror image fed by the positions of its maxima.

    Args:
        in_channels: Of the image.
        out_channels: Classes.
        base_channels: Of the encoder's first stage; 64 in the paper.

    Source:
        Badrinarayanan, Kendall and Cipolla, SegNet: a deep convolutional encoder-decoder
        architecture for image segmentation, TPAMI 2017, section 3.
    """

    def __init__(
        self, in_channels: int, out_channels: int, base_channels: int = BASE_CHANNELS
    ) -> None:
        super().__init__()
        self.encoder = Vgg16(in_channels, base_channels)
        widths = self.encoder.widths
        after = [base_channels, *widths[:-1]]  # of each stage of the decoder, finest first
        counts = [CONVOLUTIONS[0] - 1, *CONVOLUTIONS[1:]]  # the finest ends in the classifier
        self.decoder = nn.ModuleList(
            stage([width] * count + [last], batch_norm=True)
            for width, count, last in reversed(list(zip(widths, counts, after, strict=True)))
        )
        self.score = nn.Conv2d(base_channels, out_channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the network.

        Args:
            x: (B, C, H, W) image, H and W multiples of 32.

        Returns:
            (B, classes, H, W) logits.
        """
        places: list[torch.Tensor] = []
        for part in self.encoder.stages:
            x, where = nn.functional.max_pool2d_with_indices(part(x), [2, 2])
            places.append(where)
        for number, part in enumerate(self.decoder):
            x = part(unpooled(x, places[len(places) - 1 - number]))
        logits: torch.Tensor = self.score(x)
        return logits


def unpooled(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Put maxima back where a pooling by 2 found them, zeros elsewhere.

    The same as torch's `max_unpool2d`, which torch refuses to run on CUDA where it is asked for
    deterministic algorithms: it does not know that each place is taken once.

    Args:
        x: (B, C, H, W).
        places: (B, C, H, W) position of each maximum among the 4 H W pixels of its channel.

    Returns:
        (B, C, 2 H, 2 W).
    """
    batch, channels, rows, columns = x.shape
    empty = torch.zeros([batch, channels, 4 * rows * columns], dtype=x.dtype, device=x.device)
    filled = empty.scatter(2, places.flatten(2), x.flatten(2))
    return filled.reshape(batch, channels, 2 * rows, 2 * columns)


def segnet(
    in_channels: int,
    out_channels: int,
    encoder: str,  # noqa: ARG001  # the table's one choice is vgg16_bn
    *,
    base_channels: int = BASE_CHANNELS,
) -> Parts:
    """Build a SegNet for the table; arguments are those of `SegNet`."""
    network = SegNet(in_channels, out_channels, base_channels)
    return Parts(network, stride=32, encoder=network.encoder, names=network.encoder.names())
