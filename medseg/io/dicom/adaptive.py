"""Work spread over threads only where waiting for storage, not computing, takes the time."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = 8
_TRIED = 16
_SLOW_S = 0.005
"""Mean time of one item above which storage is slow: a local file takes a tenth of it."""


def map_files(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Apply a function that reads a small file to each item, in order.

    Files at hand are read one after the other: threads would compete for the interpreter and for
    page faults of one array. When the first ones come slowly (network share, disc), the rest is
    read by several threads.

    Args:
        work: The function; safe to call from threads.
        items: Its arguments.

    Yields:
        Results in the order of the items.
    """
    begin = time.perf_counter()
    tried = min(_TRIED, len(items))
    for item in items[:tried]:
        yield work(item)
    rest = items[tried:]
    if not rest:
        return
    if time.perf_counter() - begin < _SLOW_S * tried:
        yield from map(work, rest)
        return
    with ThreadPoolExecutor(THREADS) as pool:
        futures = [pool.submit(work, item) for item in rest]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()
