"""Images of a folder, for a bundle's YAML."""

from pathlib import Path

from medseg.io.files import group_channels, is_image_file


def images_in(folder: str) -> list[str | list[str]]:
    """List the images of a folder, those of several channels together.

    Args:
        folder: With files `<case>_0000`, `<case>_0001` ... a channel, or a file an image.

    Returns:
        A path, or one path a channel, of each image; sorted.
    """
    files = [path for path in Path(folder).iterdir() if path.is_file() and is_image_file(path)]
    groups = sorted(group_channels(files).items())
    return [str(paths[0]) if len(paths) == 1 else [str(p) for p in paths] for _, paths in groups]
