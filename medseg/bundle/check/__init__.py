"""Find every fault of a bundle at once, offline and without running anything of it."""

from medseg.bundle.check.check import check_bundle
from medseg.bundle.check.fault import Fault
from medseg.bundle.check.inapplicable import Inapplicable, inapplicable_to

__all__ = ["Fault", "Inapplicable", "check_bundle", "inapplicable_to"]
