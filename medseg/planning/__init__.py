"""Fingerprints of datasets, and plans made from them by published rules."""

from medseg.planning.fingerprint import Fingerprint, fingerprint
from medseg.planning.plan import CONFIGURATIONS, Plan, make_plan

__all__ = ["CONFIGURATIONS", "Fingerprint", "Plan", "fingerprint", "make_plan"]
