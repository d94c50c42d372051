"""What commands say of cases: amounts, counts of objects, what was left out."""

from typing import Any

import pytest

from medseg.cli.cases import found_text, show_cases


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ({"labels": None}, ""),
        (
            {
                "labels": [
                    {"name": "liver", "voxels": 9, "volume_ml": 1500.04},
                    {"name": "tumour", "voxels": 0, "volume_ml": 0.0},
                    {"name": "spleen", "voxels": 2, "volume_ml": 0.25},
                ]
            },
            "liver 1500.0 ml, spleen 0.2 ml",
        ),
        ({"labels": [{"name": "car", "voxels": 1200, "volume_ml": None}]}, "car 1200 pixels"),
        (
            {
                "labels": [{"name": "nucleus", "voxels": 36131, "volume_ml": None}],
                "objects": {"count": 24, "classes": {"nucleus": 24, "debris": 0}},
            },
            "24 x nucleus",
        ),
        ({"labels": [], "objects": {"count": 0, "classes": {"nucleus": 0}}}, ""),
    ],
)
def test_what_was_found_is_said_in_its_own_unit(case: dict[str, Any], text: str) -> None:
    assert found_text(case) == text


def test_masks_beside_images_are_said_to_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    rejected = [
        {"path": f"n{number}/masks", "code": "masks", "message": "x"} for number in range(3)
    ]
    show_cases({"cases": [], "rejected": rejected}, [])
    said = capsys.readouterr().err
    assert "Left out: 3 folders of masks beside images, n0/masks" in said
    assert "being no image" not in said
