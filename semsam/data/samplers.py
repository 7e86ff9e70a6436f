"""Which row comes next: endless and shuffled for training, each once for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


class TrainingSampler(Sampler[tuple[int, int]]):
    """The endless stream of shuffled epochs, of which each rank takes every ``world_size``-th item.

    An item is (position, row): its place in the stream, counted over all ranks, and the row of the
    dataset. The stream depends on the seed alone, so a run that has used n samples continues, on
    any number of ranks, with ``start=n``.

    Args:
        num_rows: rows of the dataset.
        seed: of the shuffling.
        rank: this process.
        world_size: number of processes.
        start: samples that all ranks together have used before.

    Raises:
        ValueError: if there is no row.
    """

    def __init__(
        self, num_rows: int, seed: int, rank: int = 0, world_size: int = 1, start: int = 0
    ) -> None:
        if num_rows < 1:
            raise ValueError("a dataset to train on needs at least one row")
        self.num_rows = num_rows
        self.seed = seed
        self.world_size = world_size
        self.first = start + rank

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (position, row) without end."""
        position, epoch, order = self.first, -1, np.empty(0, dtype=np.int64)
        while True:
            if position // self.num_rows != epoch:
                epoch = position // self.num_rows
                order = np.random.default_rng((self.seed, epoch)).permutation(self.num_rows)
            yield position, int(order[position % self.num_rows])
            position += self.world_size


class MixtureSampler(Sampler[tuple[int, int]]):
    """As ``TrainingSampler``, of several datasets with a stated share of the samples each.

    The stream is made of rounds, in which dataset i comes ``shares[i]`` times, in an order of the
    round's own. Each dataset runs through shuffled epochs of its own.

    Args:
        sizes: rows of each dataset; rows are counted over all of them.
        shares: samples of each dataset in a round.
        seed: of the shuffling.
        rank: this process.
        world_size: number of processes.
        start: samples that all ranks together have used before.

    Raises:
        ValueError: if there is not one positive share a dataset, or one has no row.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        shares: Sequence[int],
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
    ) -> None:
        if len(sizes) != len(shares) or min(shares, default=0) < 1:
            raise ValueError(
                f"{len(sizes)} datasets have as many whole shares of at least 1, got {shares}"
            )
        if min(sizes) < 1:
            raise ValueError("a dataset to train on needs at least one row")
        self.sizes = np.asarray(sizes)
        self.shares = np.asarray(shares)
        self.seed = seed
        self.world_size = world_size
        self.first = start + rank

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (position, row) without end."""
        length, offsets = int(self.shares.sum()), np.cumsum(self.sizes) - self.sizes
        members = np.repeat(np.arange(len(self.sizes)), self.shares)
        # Of each dataset the epoch whose order is at hand.
        orders: dict[int, tuple[int, np.ndarray]] = {}
        position = self.first
        while True:
            number, place = divmod(position, length)
            turns = np.random.default_rng((self.seed, 0, number)).permutation(members)
            dataset = int(turns[place])
            used = number * self.shares[dataset] + np.count_nonzero(turns[:place] == dataset)
            epoch, index = divmod(int(used), int(self.sizes[dataset]))
            if orders.get(dataset, (-1,))[0] != epoch:
                rng = np.random.default_rng((self.seed, 1 + dataset, epoch))
                orders[dataset] = epoch, rng.permutation(self.sizes[dataset])
            yield position, int(offsets[dataset] + orders[dataset][1][index])
            position += self.world_size


class InferenceSampler(Sampler[int]):
    """Each row exactly once over all ranks; a rank takes one stretch of them.

    Args:
        num_rows: rows of the dataset.
        rank: this process.
        world_size: number of processes.
    """

    def __init__(self, num_rows: int, rank: int = 0, world_size: int = 1) -> None:
        begin, end = (num_rows * number // world_size for number in (rank, rank + 1))
        self.rows = range(begin, end)

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)
