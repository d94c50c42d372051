"""Where bundles are looked for."""

import os
from pathlib import Path

import platformdirs

from medseg.errors import BundleError

METADATA = Path("configs", "metadata.json")

SEARCH_PATH_VARIABLE = "MEDSEG_BUNDLES"
"""Folders of bundles, separated as in PATH; looked in first. Optional."""


def search_path() -> list[Path]:
    """Return the folders in which bundles are found by name, first match wins.

    Returns:
        Folders that exist: those of `MEDSEG_BUNDLES`, the user's data folder, the bundles that
        came with the package, the `bundles` folder of a source checkout.
    """
    package = Path(__file__).parents[1]
    named = os.environ.get(SEARCH_PATH_VARIABLE, "").split(os.pathsep)
    folders = [Path(name) for name in named if name]
    folders += [
        Path(platformdirs.user_data_dir("medseg", appauthor=False)) / "bundles",
        package / "_bundles",
        package.parent / "bundles",
    ]
    return [folder for folder in folders if folder.is_dir()]


def list_bundles() -> dict[str, Path]:
    """Return every bundle on the search path.

    Returns:
        Name to folder, sorted by name.
    """
    found: dict[str, Path] = {}
    for folder in search_path():
        for bundle in sorted(folder.iterdir()):
            if (bundle / METADATA).is_file():
                found.setdefault(bundle.name, bundle)
    return dict(sorted(found.items()))


def find_bundle(name: str | Path) -> Path:
    """Return the folder of a bundle given by folder or by name.

    Args:
        name: Folder of a bundle, or the name of one on the search path.

    Returns:
        The bundle's folder.

    Raises:
        BundleError: If there is none (code `unknown-bundle`), or the folder is not a bundle
            (code `not-a-bundle`).
    """
    folder = Path(name)
    if folder.is_dir():
        if not (folder / METADATA).is_file():
            msg = f"bundle must hold {METADATA.as_posix()}, got {str(name)!r} without it."
            raise BundleError(msg, code="not-a-bundle")
        return folder.resolve()
    bundles = list_bundles()
    if str(name) in bundles:
        return bundles[str(name)]
    known = ", ".join(bundles) or "none"
    msg = f"bundle must be a folder or one of: {known}; got {str(name)!r}."
    raise BundleError(msg, code="unknown-bundle")


def cache_folder() -> Path:
    """Return the user's cache folder of medseg, or the one that `MEDSEG_CACHE` names.

    Returns:
        The folder; it need not exist.
    """
    if named := os.environ.get("MEDSEG_CACHE"):
        return Path(named)
    return Path(platformdirs.user_cache_dir("medseg", appauthor=False))
