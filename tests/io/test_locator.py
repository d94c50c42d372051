from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from medseg.io.locator import Locator, parse_locator, plain_names

PLACES = [
    Locator(Path("/data/ct")),
    Locator(Path("/data/ct"), "CT_3_0a1b2c3d_2"),
    Locator(
        Path("/data/s.dcm"), "1.2.840", Path("/data/ct, all?1"), (("a b/c:d+e,ü&=#?@%", (1, 12)),)
    ),
    Locator(Path("/data/s.dcm"), "", Path("/data/ct"), (("liver", (1, 2)), ("tumour", (2,)))),
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
