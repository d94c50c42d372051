"""Codes of labels, as the metadata of a bundle state them."""

from typing import Any

from medseg.volume import Concept

CONCEPT_RULE = 'a code such as {"value": "10200004", "scheme": "SCT", "meaning": "Liver"}'
CODES = ("code", "category")
"""Fields of the table of labels that are codes."""

LENGTHS = {"value": 16, "scheme": 16, "meaning": 64}
"""Field to the letters that DICOM has room for."""


def read_concept(stated: Any) -> Concept | None:
    """Return a code that the metadata of a bundle state.

    Args:
        stated: `{"value", "scheme", "meaning"}`, or None.

    Returns:
        The code; None where none is stated.

    Raises:
        ValueError: If it has other fields, or texts that are empty or too long for DICOM.
    """
    if stated is None:
        return None
    if not isinstance(stated, dict) or set(stated) != set(LENGTHS):
        msg = f"must be {CONCEPT_RULE}, got {stated!r}"
        raise ValueError(msg)
    for field, length in LENGTHS.items():
        text = stated[field]
        if not isinstance(text, str) or not text.strip() or len(text) > length or "\\" in text:
            msg = f"must have a {field} of 1 to {length} letters, got {text!r}"
            raise ValueError(msg)
    return Concept(**stated)
