"""Threads where storage is slow, none where it is not; the same results in the same order."""

import threading
import time

import pytest

from medseg.io.dicom.adaptive import map_files


@pytest.mark.parametrize("delay", [0.0, 0.02])
def test_results_keep_their_order(delay: float) -> None:
    def work(number: int) -> int:
        time.sleep(delay * (number % 3 == 0) * 3)
        return number * number

    assert list(map_files(work, range(40))) == [number * number for number in range(40)]


def test_slow_storage_is_read_by_several_threads() -> None:
    seen = set()

    def work(_: int) -> None:
        seen.add(threading.get_ident())
        time.sleep(0.01)

    list(map_files(work, range(40)))
    assert len(seen) > 1


def test_errors_come_through() -> None:
    def work(number: int) -> None:
        time.sleep(0.01)
        if number == 30:
            raise ValueError(number)

    with pytest.raises(ValueError, match="30"):
        list(map_files(work, range(60)))
