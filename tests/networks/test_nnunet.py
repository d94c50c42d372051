"""U-Nets that take nnU-Net's weights: form, scripting, and what they refuse."""

from typing import Any

import pytest
import torch

from medseg.errors import UsageError
from medseg.networks import NnunetUNet, nnunet_ensemble

OPTIONS: dict[str, Any] = {
    "spatial_dims": 3,
    "in_channels": 2,
    "out_channels": 3,
    "features": [4, 6, 8],
    "kernel_sizes": [[3, 3, 1], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [2, 2, 1], [2, 2, 2]],
    "encoder_blocks": [1, 2, 1],
    "decoder_blocks": [1, 2],
}


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")  # MONAI exports by it
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_logits_have_the_size_of_the_image_and_scripting_keeps_them(
    residual: bool, norm: str
) -> None:
    network = NnunetUNet(**OPTIONS, residual=residual, norm=norm).eval()
    x = torch.randn(2, 2, 16, 12, 6)
    with torch.inference_mode():
        logits = network(x)
        scripted = torch.jit.script(network)
        assert logits.shape == (2, 3, 16, 12, 6)
        assert torch.allclose(scripted(x), logits, atol=1e-5)


def test_members_of_an_ensemble_are_averaged() -> None:
    network = nnunet_ensemble(folds=2, **OPTIONS).eval()
    x = torch.randn(1, 2, 8, 8, 4)
    with torch.inference_mode():
        first, second = (member(x) for member in network.members)
        assert torch.allclose(network(x), (first + second) / 2, atol=1e-6)
        assert not torch.allclose(first, second, atol=1e-2)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"strides": [[1, 1, 1]]}, "an entry a resolution"),
        ({"decoder_blocks": [1, 1, 1]}, "one less"),
        ({"norm": "layer"}, "instance or batch"),
        ({"spatial_dims": 1}, "2 or 3 dimensions"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        NnunetUNet(**(OPTIONS | changes))


def test_an_ensemble_of_none_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        nnunet_ensemble(folds=0, **OPTIONS)
