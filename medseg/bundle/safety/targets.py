"""Which classes a config may have built: those that are networks, transforms, inferers, losses."""

import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

from medseg.bundle.check.targets import Locator

PACKAGES = ("monai", "medseg", "torch")

NETWORKS = ("monai.networks.", "monai.losses.", "monai.apps.vista3d.", "torch.nn.",
            "medseg.networks.", "medseg.losses.")  # fmt: skip
TRANSFORMS = ("monai.transforms.", "monai.apps.vista3d.", "monai.apps.pathology.transforms.",
              "monai.apps.deepgrow.", "monai.apps.deepedit.", "medseg.transforms.",
              "medseg.inference.")  # fmt: skip
INFERERS = ("monai.inferers.", "monai.apps.vista3d.", "medseg.inference.")
READERS = ("monai.data.image_reader", "medseg.transforms.")
MAKERS = ("monai.networks.nets.", "medseg.networks.")
"""Modules whose functions make networks."""

BY_NAME = ("TorchVision", "TorchIO", "CuCIM", "RandCuCIM", "RandTorchIO", "RandTorchVision")
"""Begins of the names of transforms that run whatever their arguments name."""

LEFT_TO_MEDSEG = ("LoadImage", "LoadImaged", "LoadImageD", "LoadImageDict",
                  "SaveImage", "SaveImaged", "SaveImageD", "SaveImageDict")  # fmt: skip
"""Steps that medseg never runs; of their arguments some name what is to be imported."""

FETCHING = (
    "PerceptualLoss", "MedicalNetPerceptualSimilarity", "RadImageNetPerceptualSimilarity",
    "TorchvisionModelPerceptualSimilarity", "Transchex", "BertPreTrainedModel", "CellSamWrapper",
    "get_pretrained_resnet_medicalnet", "load_encoder_weights", "FID",
    "InceptionScore", "InceptionModel",
)  # fmt: skip
"""What reads weights, or the code of a network, from elsewhere when it is built."""

WRITING = ("WriteFileMapping", "SaveClassification", "PatchInferer")
"""Begins of the names of what writes files, or imports what merges patches, as arguments name."""

TRAINING = (
    "torch.optim.", "torch.utils.data.", "torch.nn.parallel.", "torch.amp.", "monai.optimizers.",
    "monai.data.", "monai.metrics.", "monai.handlers.", "monai.engines.", "ignite.engine.",
    "ignite.handlers.", "ignite.metrics.", "medseg.data.", "medseg.metrics.", "medseg.training.",
)  # fmt: skip
"""Modules whose classes only training is made of."""

TRAINING_MAKERS = ("medseg.data.", "medseg.training.")
"""Modules whose functions training is made of."""

OUTWARD = re.compile(
    r"ignite\.handlers\.(clearml|mlflow|neptune|polyaxon|visdom|wandb)_logger\..*"
    r"|torch\.utils\.data\.datapipes\..*"
    r"|monai\.handlers\.(clearml_handlers|mlflow_handler)\..*"
    r"|medseg\.data\.prepare\..*"
    r"|monai\.data\..*\.(LMDB|GDS|Persistent|CacheNTrans|CSV|CSVIterable|NPZ|Image)\w*Dataset"
)
"""What sends elsewhere, fetches, reads pickles of a folder, or imports a reader that is named."""

NOT_FOUND = "it is not found"
"""Reason against a name in one of the packages that stands for nothing."""


def reason_against(target: str) -> str:
    """Say why a class may not be built.

    Args:
        target: `_target_` of a config: the name of a MONAI class, or a dotted name.

    Returns:
        A reason; empty for a network, transform, inferer, loss or reader of MONAI, medseg, torch.
    """
    if "." in target and target.partition(".")[0] not in PACKAGES:
        return f"{target.partition('.')[0]} is not among {', '.join(PACKAGES)}"
    if "." not in target and not Locator(Path()).knows(target):
        return "MONAI has no class of this name"
    found = _found(target)
    if found is None:
        return NOT_FOUND
    module, name = str(getattr(found, "__module__", "")), str(getattr(found, "__name__", ""))
    if reason := _reason_against_name(name):
        return reason
    if inspect.isclass(found):
        kinds = (prefixes for base, prefixes in _kinds() if issubclass(found, base))
        allowed = any(f"{module}.".startswith(prefixes) for prefixes in kinds)
    else:
        allowed = inspect.isfunction(found) and f"{module}.".startswith(MAKERS)
    return "" if allowed else "it is no network, transform, inferer, loss or reader"


def training_reason_against(target: str) -> str:
    """Say why a class may not be built for training.

    Args:
        target: `_target_` of a config: the name of a MONAI class, or a dotted name.

    Returns:
        A reason; empty for what inference may build, and for an optimizer, schedule, metric,
        dataset, loader, sampler, handler or engine of MONAI, ignite, medseg or torch.
    """
    reason = reason_against(target)
    if not reason or ("." in target and target.partition(".")[0] not in (*PACKAGES, "ignite")):
        return reason
    found = _found(target)
    if found is None:
        return reason
    module, name = str(getattr(found, "__module__", "")), str(getattr(found, "__name__", ""))
    allowed = TRAINING if inspect.isclass(found) else TRAINING_MAKERS
    known = inspect.isclass(found) or inspect.isfunction(found)
    whole = f"{module}.{name}"
    if not known or not whole.startswith(allowed) or _reason_against_name(name):
        return "it is no part of a network, of its training or of its data"
    return "it sends, fetches, imports or unpickles" if OUTWARD.fullmatch(whole) else ""


def _reason_against_name(name: str) -> str:
    if name.startswith((*BY_NAME, *WRITING)) or name in FETCHING:
        return "it runs, fetches or writes what its arguments name"
    if name.startswith("_"):  # some functions of MONAI's networks download what they are told to
        return "it is not meant for use from outside its module"
    return ""


def is_part_of_training(dotted: str) -> bool:
    """Whether a dotted name is a class or function that configs of training may use.

    Args:
        dotted: For example `torch.optim.AdamW`.
    """
    if dotted.rpartition(".")[2] in LEFT_TO_MEDSEG:
        return False
    packages = (*PACKAGES, "ignite")
    return dotted.partition(".")[0] in packages and not training_reason_against(dotted)


def may_fetch(dotted: str, given: int, off: frozenset[str]) -> bool:
    """Whether a call may fetch weights.

    Args:
        dotted: Name of the class or function.
        given: Arguments by their place.
        off: Arguments by their name that are false.

    Returns:
        Whether an argument `pretrained...` is given by its place, or true unless it is told.
    """
    try:
        parameters = inspect.signature(_found(dotted)).parameters.values()
    except (TypeError, ValueError):  # of some classes of torch, which fetch nothing
        return False
    return any(
        one.name.startswith("pretrained")
        and one.name not in off
        and (place < given or one.default not in (None, False, inspect.Parameter.empty))
        for place, one in enumerate(parameters)
    )


def is_component(dotted: str) -> bool:
    """Whether a dotted name is a class that configs may build.

    Args:
        dotted: For example `monai.transforms.Compose`.
    """
    if dotted.rpartition(".")[2] in LEFT_TO_MEDSEG:  # an expression gives them any argument
        return False
    return dotted.partition(".")[0] in PACKAGES and not reason_against(dotted)


@cache
def _found(target: str) -> Any:
    try:
        return Locator(Path()).find(target)
    except Exception:  # noqa: BLE001 -- importing a module can raise anything
        return None


@cache
def _kinds() -> tuple[tuple[type, tuple[str, ...]], ...]:
    from monai.data import ImageReader  # noqa: PLC0415  # slow to import
    from monai.inferers import Inferer  # noqa: PLC0415
    from monai.transforms import Transform  # noqa: PLC0415
    from torch import nn  # noqa: PLC0415

    return (
        (nn.Module, NETWORKS),
        (Transform, TRANSFORMS),
        (Inferer, INFERERS),
        (ImageReader, READERS),
    )
