"""Which samples each process takes in each iteration, and which cases it validates."""

from collections.abc import Iterator

from torch.utils.data import Sampler

from medseg.errors import UsageError
from medseg.training.processes import rank, world_size


class BatchNumbers(Sampler[list[int]]):
    """Hand out sample numbers 0, 1, 2 ... of a whole training, batch by batch.

    A sample is a function of its number, so nothing but the iteration is needed to go on where a
    run stopped. Of several processes each takes its share of every batch.

    Args:
        batch_size: Samples of an iteration, over all processes.
        iterations: Iterations of the whole training.

    Raises:
        UsageError: If there are more processes than samples in a batch.
    """

    def __init__(self, batch_size: int, iterations: int) -> None:
        world = world_size()
        if batch_size < world:
            msg = (
                f"batch_size must be at least the number of processes, got {batch_size}"
                f" for {world}. Start fewer processes or use --set batch_size=N."
            )
            raise UsageError(msg)
        self.batch_size = batch_size
        self.iterations = iterations
        self._first = 0

    def start_at(self, iteration: int) -> None:
        """Go on after an iteration.

        Args:
            iteration: Iterations that are done.
        """
        self._first = iteration

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the numbers of this process, an iteration at a time."""
        own, world = rank(), world_size()
        for iteration in range(self._first, self.iterations):
            start = iteration * self.batch_size
            yield list(range(start + own, start + self.batch_size, world))

    def __len__(self) -> int:
        """Return the iterations of the whole training."""
        return self.iterations


class ShardSampler(Sampler[int]):
    """Share cases among processes, each case to exactly one.

    torch's `DistributedSampler` repeats cases until every process has as many; they would count
    twice in a metric.

    Args:
        size: Number of cases.

    Raises:
        UsageError: If there are fewer cases than processes: one would have nothing to do, and
            the others would wait for it forever.
    """

    def __init__(self, size: int) -> None:
        if size < world_size():
            msg = (
                f"validation must have a case a process at least, got {size} cases for"
                f" {world_size()} processes. Start fewer processes."
            )
            raise UsageError(msg)
        self.size = size

    def __iter__(self) -> Iterator[int]:
        """Yield the positions of this process."""
        return iter(range(rank(), self.size, world_size()))

    def __len__(self) -> int:
        """Return the number of cases of this process."""
        return len(range(rank(), self.size, world_size()))
