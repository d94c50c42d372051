"""Networks that MONAI does not have, or not in the form that training wants."""

from medseg.networks.dynunet import DynUNet

__all__ = ["DynUNet"]
