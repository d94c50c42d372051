"""Find every fault of a bundle at once, offline and without running anything of it."""

from medseg.bundle.check.check import check_bundle
from medseg.bundle.check.fault import Fault

__all__ = ["Fault", "check_bundle"]
