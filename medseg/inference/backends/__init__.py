"""The libraries that can run a network, and the choice among them."""

from medseg.inference.backends.choice import BACKENDS, PRECISIONS, REFERENCE, Choice, Chooser
from medseg.inference.backends.probe import Demand
from medseg.inference.backends.runners import Subject

__all__ = ["BACKENDS", "PRECISIONS", "REFERENCE", "Choice", "Chooser", "Demand", "Subject"]
