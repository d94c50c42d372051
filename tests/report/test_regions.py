"""Numbered regions in sum."""

from typing import Any

import pytest

from medseg.report.regions import listed_statistics, region_summary


def rows(voxels: list[int], components: int = 1) -> list[dict[str, Any]]:
    return [{"voxels": count, "components": components if count else 0} for count in voxels]


def test_regions_are_summed_up() -> None:
    found = region_summary([*rows([4, 1, 0, 9]), *rows([2], components=3)])
    assert found == {
        "count": 4,
        "voxels": {"smallest": 1, "median": 3.0, "largest": 9},
        "scattered": 1,
    }


def test_no_region_has_no_size() -> None:
    found = region_summary([])
    assert found["count"] == 0
    assert set(found["voxels"].values()) == {None}


@pytest.mark.parametrize(("count", "listed"), [(0, 0), (255, 255), (256, 0)])
def test_up_to_255_are_listed(count: int, listed: int) -> None:
    assert len(listed_statistics(rows([1] * count))) == listed
