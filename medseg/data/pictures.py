"""What datasets of natural images have in common: channels, labels of colours, lists of files."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from medseg.data.dataset import Channel, Structure, TrainingCase
from medseg.errors import InputError, MedsegError
from medseg.io.files import file_stem, file_suffix, is_image_file
from medseg.io.locator import Codes, Locator, parse_locator
from medseg.io.masks import labels_in, read_mask
from medseg.io.read import read

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
COLOURS = ("red", "green", "blue")
MOST_NAMED = 10
"""Files that a message names."""


def channels_of_cases(cases: Sequence[TrainingCase]) -> tuple[Channel, ...]:
    """Return the channels of the first case: its files, or those of its one file.

    A picture is read for it; the next one where it cannot be, which the check of a dataset names.

    Args:
        cases: At least one.

    Returns:
        `red`, `green` and `blue` of a colour image.

    Raises:
        InputError: If none can be read.
    """
    if len(cases[0].images) > 1:
        return tuple(Channel(f"image_{number}") for number in range(len(cases[0].images)))
    first_error: MedsegError | None = None
    for case in cases:
        place = parse_locator(case.images[0])
        if not place.kind and file_suffix(place.path) not in PICTURES:
            return (Channel("image"),)
        try:
            count = read(case.images[0]).channels
        except MedsegError as error:
            first_error = first_error or error
            continue
        if count == len(COLOURS):
            return tuple(Channel(colour, "RGB") for colour in COLOURS)
        names = ["image"] if count == 1 else [f"image_{number}" for number in range(count)]
        return tuple(Channel(name) for name in names)
    assert first_error is not None
    raise first_error


def is_color_image(path: Path) -> bool:
    """Tell whether the pixels of a label are colours, by its header.

    Args:
        path: Image file.

    Returns:
        False for grey and palette images, and for what cannot be read: its reader says why.
    """
    try:
        with Image.open(path) as image:
            return image.mode in ("RGB", "RGBA", "CMYK", "YCbCr")
    except (OSError, SyntaxError, ValueError):
        return False


def with_codes(label: Path, codes: Codes, *, by_color: bool) -> Path:
    """Return a label as it has to be read.

    Args:
        label: Image file.
        codes: Values of what its pixels stand for; empty: they are the values.
        by_color: They are colours.

    Returns:
        A path for `read_mask`.
    """
    return (
        Locator(label, kind="colors" if by_color else "values", codes=codes).as_path()
        if codes
        else label
    )


def structures_in(labels: Sequence[Path]) -> tuple[Structure, ...]:
    """Return the values that label files hold, each as a structure.

    Files that cannot be read are passed over: the check of a dataset names them, with all else
    that is wrong.

    Args:
        labels: Label files; all are read.

    Returns:
        Structures named `label_<value>`, by rising value, 0 left out.

    Raises:
        InputError: If none of them holds a label (`bad-dataset`), or none can be read.
    """
    found: set[int] = set()
    first_error: MedsegError | None = None
    for path in labels:
        try:
            found |= labels_in(read_mask(path))
        except MedsegError as error:
            first_error = first_error or error
    found.discard(0)
    if not found and first_error is not None:
        raise first_error
    if not found:
        msg = f"labels must hold values above 0, got none in {len(labels)} files."
        raise InputError(msg, code="bad-dataset")
    return tuple(Structure(f"label_{value}", (value,)) for value in sorted(found))


def images_by_stem(folder: Path) -> dict[str, Path]:
    """Return the image files of a folder.

    Args:
        folder: May be missing.

    Returns:
        Path by stem.

    Raises:
        InputError: If two files have one stem (`bad-dataset`).
    """
    if not folder.is_dir():
        return {}
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_file() or not is_image_file(path):
            continue
        stem = file_stem(path)
        if stem in found:
            names = f"{found[stem].name} and {path.name}"
            msg = f"{folder.name} must hold one file of a case, got {names}."
            raise InputError(msg, code="bad-dataset")
        found[stem] = path
    return found


def read_list(path: Path) -> list[list[str]]:
    """Read a text file that lists a case a line.

    Args:
        path: The file.

    Returns:
        The words of each line that is not empty.

    Raises:
        InputError: If it cannot be read (`bad-dataset`).
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        msg = f"{path.name} must be a text file, got {error}."
        raise InputError(msg, code="bad-dataset") from error
    return [words for line in lines if (words := line.split())]


def named(things: Iterable[object]) -> str:
    """Return names for a message.

    Args:
        things: Names.

    Returns:
        The first ten, and how many there are more.
    """
    listed = [str(thing) for thing in things]
    more = f" and {len(listed) - MOST_NAMED} more" if len(listed) > MOST_NAMED else ""
    return ", ".join(listed[:MOST_NAMED]) + more


def refuse(faults: Mapping[str, Sequence[object]], what: str) -> None:
    """Raise one error that names all faults of a dataset.

    Args:
        faults: What is wrong, and with which files.
        what: The list or folder.

    Raises:
        InputError: If there is a fault (`bad-dataset`).
    """
    texts = [f"{len(found)} {fault}: {named(found)}" for fault, found in faults.items() if found]
    if texts:
        msg = f"{what} must lead to an image and a label each, got {'; '.join(texts)}."
        raise InputError(msg, code="bad-dataset")
