"""Weights of single folds, which a bundle cannot segment with as they lie."""

from pathlib import Path


def advice_on_folds(root: Path) -> str:
    """Say how a bundle can segment that has weights of single folds only.

    Args:
        root: The bundle's folder.

    Returns:
        What to do, in lower case; empty where no fold has weights.
    """
    files = sorted(root.glob("models/fold_*/model.pt"))
    if not files:
        return ""
    names = " or ".join(file.relative_to(root).as_posix() for file in files)
    return (
        f"copy {names} to models/model.pt, or train what is missing of the folds:"
        f" medseg train {root} --dataset DIR --fold all --resume"
    )
