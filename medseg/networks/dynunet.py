"""DynUNet whose deep supervision costs little."""

from typing import Any

import torch
from monai.networks.nets import DynUNet as MonaiDynUNet

is_scripting = torch.jit.is_scripting  # type: ignore[attr-defined]


class DynUNet(MonaiDynUNet):  # type: ignore[misc]  # monai is untyped
    """MONAI's DynUNet that returns its supervised levels at their own resolution.

    MONAI's own enlarges every level to the size of the input and stacks them in one tensor, which
    its losses reject and which costs memory and time. In evaluation mode, and without deep
    supervision, the two are the same network: weights fit both ways but for the heads.

    Arguments are those of `monai.networks.nets.DynUNet`.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021; MONAI 1.6 `DynUNet`.
    """

    def forward(self, x: torch.Tensor) -> Any:
        """Run the network.

        Args:
            x: (B, C, *spatial) image.

        Returns:
            (B, classes, *spatial) logits; in training with deep supervision a list of them,
            finest first, each level at its own resolution.
        """
        out = self.output_block(self.skip_layers(x))
        # TorchScript leaves this block out, and wants it as an `if` of its own
        if not is_scripting():  # noqa: SIM102
            if self.training and self.deep_supervision:
                return [out, *self.heads]
        return out
