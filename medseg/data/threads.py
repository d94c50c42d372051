"""Compute with one thread, so that sums come out the same bit by bit."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Have torch use one thread meanwhile.

    Sums over a volume depend on how it is split among threads, in the last bits: data prepared
    in the main process would differ from that of a loader's process, which has one thread. Small
    patches are also quicker this way.

    Yields:
        Nothing.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
