"""What made a segmentation, as DICOM objects state it."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Algorithm:
    """What made a segmentation.

    Attributes:
        name: Of the bundle or the method.
        version: Of it.
        parameters: Further texts, the hash of the weights for example.
        automatic: Whether nobody placed seeds or drew.
    """

    name: str
    version: str
    parameters: Mapping[str, str]
    automatic: bool = True

    @property
    def text(self) -> str:
        """All of it in one line."""
        more = ", ".join(f"{key} {value}" for key, value in self.parameters.items())
        return f"{self.name} {self.version}" + (f", {more}" if more else "")
