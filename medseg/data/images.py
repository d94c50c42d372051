"""Images of a folder, for a bundle's YAML."""

from pathlib import Path

from medseg.errors import InputError
from medseg.io.files import group_channels, is_image_file


def images_in(folder: str, *, several: bool = True) -> list[str | list[str]]:
    """List the images of a folder, those of several channels together.

    Args:
        folder: With files `<case>_0000`, `<case>_0001` ... a channel, or a file an image.
        several: Whether such numbers are channels; else every file is an image, as the frames of
            a video are.

    Returns:
        A path, or one path a channel, of each image; sorted.

    Raises:
        InputError: If there is no such folder, or no image in it (`no-cases`).
    """
    place = Path(folder)
    found = place.iterdir() if place.is_dir() else ()
    files = sorted(path for path in found if path.is_file() and is_image_file(path))
    if not files:
        msg = f"folder must hold the images to be segmented, got none in {folder!r}."
        raise InputError(msg, code="no-cases")
    if not several:
        return [str(path) for path in files]
    groups = sorted(group_channels(files).items())
    return [str(paths[0]) if len(paths) == 1 else [str(p) for p in paths] for _, paths in groups]
