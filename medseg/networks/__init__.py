"""Networks that MONAI does not have, or not in the form that training wants."""

from medseg.networks.dynunet import DynUNet
from medseg.networks.padded import PaddedNetwork
from medseg.networks.table import build_network, encoder_names, network_names

__all__ = ["DynUNet", "PaddedNetwork", "build_network", "encoder_names", "network_names"]
