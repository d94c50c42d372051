"""Why a training ended, in one sentence: what torch, MONAI and ignite wrap is unwrapped."""

import re

from medseg.errors import MedsegError, Problem

_IN_WORKER = re.compile(r"Caught (\w+) in DataLoader worker process \d+\.")
_KILLED = re.compile(r"DataLoader worker \(pid.*?\) (?:is killed by signal: (\w+)|exited)")
_NO_MEMORY = ("out of memory", "can't allocate memory")
_LOST_PROCESS = (
    "connection closed by peer",
    "connection reset by peer",
    "connection refused",
    "broken pipe",
    "nccl communicator was aborted",
    "timed out waiting",
)
"""What gloo, NCCL and torch's store say when another process of a training has gone."""


def problem_of(error: BaseException) -> Problem:
    """Say why a training ended.

    Args:
        error: What was raised.

    Returns:
        Code and message: those of medseg's own error wherever it lies in the chain of causes,
        also when a data loader's process raised it.
    """
    chain = causes(error)
    for one in chain:
        killed = _KILLED.search(str(one))
        if killed:
            return _killed_worker(killed.group(1))
    for one in chain:
        if isinstance(one, MedsegError):
            return Problem(one.code, words_of(one))
    cause = chain[-1]
    text = words_of(cause)
    low = text.lower()
    if isinstance(cause, MemoryError) or any(words in low for words in _NO_MEMORY):
        reason = (
            "training needs more memory than there is. Use --set batch_size=N,"
            " or plan with a smaller --memory-gb; --resume goes on."
        )
        return Problem("out-of-memory", reason)
    if any(words in low for words in _LOST_PROCESS):
        reason = f"another process of this training is gone: {_first_line(text)}"
        return Problem("process-lost", reason)
    return Problem("internal", f"{type(cause).__name__}: {_first_line(text)}")


def words_of(error: BaseException) -> str:
    """Return the message of an error without the traceback that torch's data loader puts into it.

    Args:
        error: Perhaps raised again in this process from a data loader's.

    Returns:
        The message, or the name of the error where it has none.

    Examples:
        >>> words_of(ValueError("as it is"))
        'as it is'
    """
    text = str(error)
    caught = _IN_WORKER.search(text)
    if caught:
        starts = list(re.finditer(rf"^(?:[\w.]+\.)?{caught.group(1)}(?:: |$)", text, re.MULTILINE))
        if starts:
            text = text[starts[-1].end() :]
    return text.strip() or type(error).__name__


def _killed_worker(signal: str | None) -> Problem:
    how = f"was killed ({signal})" if signal else "ended"
    reason = (
        f"a process that prepares samples {how}, most likely for want of memory."
        " Use --set num_workers=0 or a machine with more memory; --resume goes on."
    )
    return Problem("worker-killed", reason)


def causes(error: BaseException) -> list[BaseException]:
    """Return an error and what caused it, one behind the other.

    Args:
        error: What was raised.

    Returns:
        The error first.
    """
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    return chain


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says.

    Args:
        error: What was raised.

    Returns:
        The line, or the name of the error where it says nothing.

    Examples:
        >>> first_line(EOFError())
        'EOFError'
    """
    return _first_line(str(error).strip()) or type(error).__name__


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else ""
