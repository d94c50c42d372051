"""How intensities are normalised, by modality.

Source: Isensee et al., nnU-Net, Nature Methods 2021, supplementary note 2; nnU-Net v2.8.
"""

from collections.abc import Mapping
from typing import Any

CROPPED_SHARE = 0.75
"""Images that cropping to non-zero makes smaller than this are normalised inside alone."""


def scheme_for(
    modality: str, intensities: Mapping[str, float], kept_share: float
) -> tuple[dict[str, Any], str]:
    """Choose the scheme of one channel.

    Args:
        modality: DICOM modality; empty when unknown.
        intensities: `mean`, `std`, `p00_5`, `p99_5` of the foreground of the training cases.
        kept_share: Median share of the image that cropping to non-zero keeps.

    Returns:
        A scheme of `NormalizeChannelsd`, and the rule behind it.
    """
    if modality == "CT":
        scheme = {
            "scheme": "ct",
            "low": round(intensities["p00_5"], 4),
            "high": round(intensities["p99_5"], 4),
            "mean": round(intensities["mean"], 4),
            "std": round(intensities["std"], 4),
        }
        return scheme, "CT: clipped to the 0.5 and 99.5 percentiles of the foreground, then z-score"
    if modality in ("RGB", "SM"):
        return {"scheme": "rescale"}, "colour image: scaled to 0 to 1"
    nonzero = kept_share < CROPPED_SHARE
    where = "over what is not zero: cropping removes over a quarter" if nonzero else "a case"
    return {"scheme": "zscore", "nonzero": nonzero}, f"not CT: z-score {where}"


def photograph_schemes() -> list[tuple[dict[str, Any], str]]:
    """Return the schemes of red, green and blue of 8-bit photographs.

    Returns:
        A scheme of `NormalizeChannelsd` a channel, and the rule behind it.

    Source:
        torchvision's reference weights: mean and standard deviation of ImageNet.
    """
    numbers = ((123.675, 58.395), (116.28, 57.12), (103.53, 57.375))
    rule = "photograph: shifted and divided by ImageNet's mean and standard deviation"
    return [({"scheme": "fixed", "mean": mean, "std": std}, rule) for mean, std in numbers]
