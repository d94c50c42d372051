from unittest.mock import patch

import pytest

from medseg.errors import UsageError
from medseg.training import BatchNumbers, ShardSampler


def _as_rank(rank: int, world: int):
    return patch.multiple(
        "medseg.training.numbers",
        rank=lambda: rank,
        world_size=lambda: world,
    )


def test_one_process_takes_all_samples_in_order() -> None:
    assert list(BatchNumbers(3, 2)) == [[0, 1, 2], [3, 4, 5]]


def test_a_resume_goes_on_with_the_next_iteration() -> None:
    whole = list(BatchNumbers(3, 5))
    rest = BatchNumbers(3, 5)
    rest.start_at(2)
    assert list(rest) == whole[2:]


@pytest.mark.parametrize(("batch_size", "world"), [(9, 2), (4, 4), (5, 3)])
def test_processes_share_each_batch_and_leave_no_sample_out(batch_size: int, world: int) -> None:
    parts = []
    for rank in range(world):
        with _as_rank(rank, world):
            parts.append(list(BatchNumbers(batch_size, 3)))
    for iteration, expected in enumerate(BatchNumbers(batch_size, 3)):
        together = [number for part in parts for number in part[iteration]]
        assert sorted(together) == expected


def test_more_processes_than_samples_are_refused() -> None:
    with _as_rank(0, 4), pytest.raises(UsageError, match="got 3 for 4"):
        BatchNumbers(3, 1)


@pytest.mark.parametrize(("size", "world"), [(5, 2), (7, 3), (3, 3)])
def test_each_case_is_validated_by_one_process(size: int, world: int) -> None:
    found: list[int] = []
    for rank in range(world):
        with _as_rank(rank, world):
            sampler = ShardSampler(size)
            part = list(sampler)
            assert len(sampler) == len(part)
            found += part
    assert sorted(found) == list(range(size))


def test_a_process_without_a_case_is_refused_for_the_others_would_wait() -> None:
    with _as_rank(1, 3), pytest.raises(UsageError, match="got 2 cases for 3 processes"):
        ShardSampler(2)
