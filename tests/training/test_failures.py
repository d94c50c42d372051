import os
import signal
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from medseg.errors import InputError, SampleError
from medseg.training.failures import problem_of, words_of


class Broken(Dataset[int]):
    def __init__(self, error: BaseException | None) -> None:
        self.error = error

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        if self.error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        raise self.error  # type: ignore[misc]


def _raised_by_a_worker(error: BaseException | None) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011  # which one is what is tested
        list(DataLoader(Broken(error), num_workers=1))
    return caught.value


def test_an_error_of_a_data_loaders_process_keeps_its_code_and_words() -> None:
    raised = _raised_by_a_worker(SampleError("case liver_3: RandFlipd: no such luck"))
    assert "Traceback" in str(raised)  # what torch makes of it
    problem = problem_of(raised)
    assert problem.code == "training-sample"
    assert problem.message == "case liver_3: RandFlipd: no such luck"


def test_another_error_of_a_data_loaders_process_is_named() -> None:
    problem = problem_of(_raised_by_a_worker(ZeroDivisionError("by zero: twice")))
    assert problem.code == "internal"
    assert problem.message == "ZeroDivisionError: by zero: twice"


def test_a_message_of_several_lines_stays_whole() -> None:
    raised = _raised_by_a_worker(InputError("2 of 3 cases:\n  case a: bad\n  case b: worse"))
    assert words_of(raised) == "2 of 3 cases:\n  case a: bad\n  case b: worse"


# torch's handler of the signal may raise once more while the loader is taken down
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_killed_process_is_said_to_be_killed() -> None:
    problem = problem_of(_raised_by_a_worker(None))
    assert problem.code == "worker-killed"
    assert "memory" in problem.message
    assert "num_workers=0" in problem.message


def test_a_cause_counts_and_not_what_wraps_it() -> None:
    try:
        try:
            msg = "label x.nii holds 7"
            raise InputError(msg, code="unknown-label")
        except InputError as error:
            raise RuntimeError("failed to instantiate train#source") from error
    except RuntimeError as error:
        problem = problem_of(error)
    assert (problem.code, problem.message) == ("unknown-label", "label x.nii holds 7")


def test_too_little_memory_is_told_from_other_errors_of_torch() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert problem_of(caught.value).code == "out-of-memory"
    with pytest.raises(RuntimeError) as other:
        torch.zeros(2) @ torch.zeros(3)
    assert problem_of(other.value).code == "internal"


@pytest.mark.parametrize(
    "text",
    [
        "[/pytorch/gloo/transport/tcp/pair.cc:547] Connection closed by peer [::1]",
        "Connection reset by peer",
    ],
)
def test_a_lost_peer_is_not_taken_for_the_fault(text: str) -> None:
    assert problem_of(RuntimeError(text)).code == "process-lost"


@pytest.mark.parametrize("error", [ValueError(), RuntimeError("")])
def test_an_error_without_words_is_named(error: Any) -> None:
    assert problem_of(error).message.startswith(type(error).__name__)
