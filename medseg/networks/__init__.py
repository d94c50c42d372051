"""Networks that MONAI does not have, or not in the form that training wants."""

from medseg.networks.dynunet import DynUNet
from medseg.networks.nnunet import LogitMean, NnunetUNet, nnunet_ensemble
from medseg.networks.padded import PaddedNetwork
from medseg.networks.table import build_network, encoder_names, network_names

__all__ = [
    "DynUNet",
    "LogitMean",
    "MaskRcnn",
    "NnunetUNet",
    "PaddedNetwork",
    "build_network",
    "encoder_names",
    "network_names",
    "nnunet_ensemble",
]


def __getattr__(name: str) -> object:
    """Import Mask R-CNN when it is asked for: torchvision takes half a second."""
    if name == "MaskRcnn":
        from medseg.networks.mask_rcnn import MaskRcnn  # noqa: PLC0415

        return MaskRcnn
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
