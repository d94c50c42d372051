"""What MONAI's bundle commands cannot do with a bundle that is in order."""

from dataclasses import asdict, dataclass
from pathlib import Path

from medseg.bundle.check.documents import read_documents

LISTS = "its network returns a list of dictionaries, an image each: boxes, labels, scores, masks"
SCRIPT = (
    "places are kept in float32 by hooks, which TorchScript does not take; use the weights as they"
    " are, models/model.pt"
)


@dataclass(frozen=True, slots=True)
class Inapplicable:
    """One command that a bundle of this kind cannot be given to.

    Attributes:
        command: Of `monai.bundle` or medseg.
        reason: Why not.
    """

    command: str
    reason: str

    def as_json(self) -> dict[str, str]:
        """Return it as it stands in the JSON document."""
        return asdict(self)


OF_OBJECTS = (
    Inapplicable("monai.bundle verify_net_in_out", f"{LISTS}; the command compares one tensor"),
    Inapplicable("monai.bundle ckpt_export", SCRIPT),
    Inapplicable("monai.bundle onnx_export, trt_export", f"{LISTS}; they take one tensor"),
    Inapplicable("medseg bundle export --to", f"{LISTS}; --single-file works"),
)


def inapplicable_to(root: Path) -> tuple[Inapplicable, ...]:
    """Return what does not apply to a bundle, which is no fault of it.

    Args:
        root: The bundle's folder.

    Returns:
        Nothing for a bundle that segments classes or regions, or whose metadata cannot be read.
    """
    documents, _ = read_documents(root)
    own = documents.get("metadata", {}).get("medseg")
    return OF_OBJECTS if isinstance(own, dict) and own.get("objects") is True else ()
