"""Mixed precision that works on a CPU as on a GPU."""

from typing import Any

import torch
from monai.inferers import Inferer, SimpleInferer


class AutocastInferer(Inferer):  # type: ignore[misc]  # monai is untyped
    """Run the network under bfloat16 autocast on whatever device the input lies on.

    MONAI 1.6 engines enter `torch.autocast("cuda")` whatever the device, so their `amp: true`
    does nothing on a CPU. bfloat16 has float32's range: no gradient scaler is needed.

    Args:
        enabled: False runs in float32.
        inferer: Inferer that calls the network, a sliding window for example; the network is
            called with the whole input when left out.
    """

    def __init__(self, enabled: bool = True, inferer: Inferer | None = None) -> None:
        super().__init__()
        self.enabled = enabled
        self.inferer = inferer or SimpleInferer()

    def __call__(
        self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Run the network on one batch.

        Args:
            inputs: (B, C, *spatial) batch.
            network: Called with the batch.
            *args: Passed to the network.
            **kwargs: Passed to the network.

        Returns:
            What the network returns; bfloat16 where autocast made it so.
        """
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=self.enabled):
            result: torch.Tensor = self.inferer(inputs, network, *args, **kwargs)
        return result
