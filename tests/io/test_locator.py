from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from medseg.errors import UsageError
from medseg.io.locator import Locator, parse_locator, plain_names

PLACES = [
    Locator(Path("/data/ct")),
    Locator(Path("/data/ct"), "CT_3_0a1b2c3d_2"),
    Locator(
        Path("/data/s.dcm"), "1.2.840", Path("/data/ct, all?1"), (("a b/c:d+e,ü&=#?@%", (1, 12)),)
    ),
    Locator(Path("/data/s.dcm"), "", Path("/data/ct"), (("liver", (1, 2)), ("tumour", (2,)))),
    Locator(Path("/data/a.json"), kind="labelme", codes=(("tv/monitor, a:b", 20), ("ü#?&=", 255))),
    Locator(Path("/data/a.json"), kind="labelme-image"),
    Locator(Path("/data/coco.json"), kind="coco", entry="40012", codes=(("1", 1), ("90", 80))),
    Locator(Path("/data/m.png"), kind="values", codes=(("0", 0), ("1-65535", 1))),
    Locator(Path("/data/m.png"), kind="colors", codes=(("00ff7f", 0), ("e0e0c0", 255))),
    Locator(Path("/data/id/masks"), kind="objects"),
]


@pytest.mark.parametrize("place", PLACES)
def test_a_locator_survives_being_a_path_and_text(place: Locator) -> None:
    text = str(Path(str(place.as_path())).expanduser().absolute())
    assert parse_locator(text) == place
    assert plain_names([Path(text), Path(text)]) == f"{place.path.name} and {place.path.name}"


@pytest.mark.parametrize("place", PLACES)
def test_a_locator_survives_a_config_of_monai(place: Locator) -> None:
    parser = ConfigParser({"folder": str(place.as_path()), "used": "$str(@folder)"})
    assert parse_locator(parser.get_parsed_content("used")) == place


def test_a_file_whose_name_looks_like_a_locator_is_that_file(tmp_path: Path) -> None:
    path = tmp_path / "scan?series=3"
    path.touch()
    assert parse_locator(path) == Locator(path)
    assert parse_locator(tmp_path / "scan?series=4").series == "4"
    assert parse_locator(tmp_path / "scan#4.nii").path.name == "scan#4.nii"


def test_a_kind_that_is_not_known_is_refused() -> None:
    with pytest.raises(UsageError, match=r"kind must be one of values, .*, got 'yolo'"):
        parse_locator("/data/a.txt?kind=yolo")
