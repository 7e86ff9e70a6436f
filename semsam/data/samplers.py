"""Which row comes next: endless and shuffled for training, each once for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


class TrainingSampler(Sampler[tuple[int, int]]):
    """The endless stream of shuffled rows, of which each rank takes every ``world_size``-th item.

    An item is (position, row): its place in the stream, counted over all ranks, and the row,
    counted over all datasets. The stream depends on the seed and the data alone, so a run that has
    used n samples continues, on any number of ranks, with ``start=n``.

    Without shares the datasets are one, and an epoch of the stream has each of its rows once. With
    shares the stream is made of rounds, in which dataset i comes ``shares[i]`` times, in an order
    of the round's own, and each dataset runs through epochs of its own.

    Args:
        datasets: for each the numbers of rows of its shards; a dataset without shards has one.
        seed: of the shuffling.
        rank: this process.
        world_size: number of processes.
        start: samples that all ranks together have used before.
        shares: samples of each dataset in a round; none to take all rows alike.
        shards_at_once: rows are shuffled among those of so many shards, which come in a random
            order, so that few shards are read at a time; 0 shuffles all rows of an epoch.

    Raises:
        ValueError: if there is no row, there is not one positive share a dataset, or the number of
            shards is negative.
    """

    def __init__(
        self,
        datasets: Sequence[Sequence[int]],
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        shares: Sequence[int] = (),
        shards_at_once: int = 0,
    ) -> None:
        if shares and (len(datasets) != len(shares) or min(shares) < 1):
            raise ValueError(
                f"{len(datasets)} datasets have as many whole shares of at least 1, got {shares}"
            )
        if shards_at_once < 0:
            raise ValueError(
                f"shards that are shuffled together are 0 (all) or more, not {shards_at_once}"
            )
        if not shares:
            datasets = [[rows for shards in datasets for rows in shards]]
        if not all(sum(shards) for shards in datasets):
            raise ValueError("a dataset to train on needs at least one row")
        self.datasets = [np.asarray(shards, dtype=np.int64) for shards in datasets]
        self.seed = seed
        self.shares = np.asarray(shares or (1,))
        self.world_size = world_size
        self.first = start + rank
        self.shards_at_once = shards_at_once

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (position, row) without end."""
        sizes = np.array([shards.sum() for shards in self.datasets])
        length, offsets = int(self.shares.sum()), np.cumsum(sizes) - sizes
        members = np.repeat(np.arange(len(sizes)), self.shares)
        # Of each dataset the epoch whose order is at hand.
        orders: dict[int, tuple[int, np.ndarray]] = {}
        position, turns, at_hand = self.first, members, -1
        while True:
            number, place = divmod(position, length)
            if len(sizes) > 1 and number != at_hand:
                turns = np.random.default_rng((self.seed, 0, number)).permutation(members)
                at_hand = number
            dataset = int(turns[place])
            used = number * self.shares[dataset] + np.count_nonzero(turns[:place] == dataset)
            epoch, index = divmod(int(used), int(sizes[dataset]))
            if orders.get(dataset, (-1,))[0] != epoch:
                orders[dataset] = epoch, self._order(dataset, epoch)
            yield position, int(offsets[dataset] + orders[dataset][1][index])
            position += self.world_size

    def _order(self, dataset: int, epoch: int) -> np.ndarray:
        """The rows of a dataset in the order of an epoch."""
        shards = self.datasets[dataset]
        key = (self.seed, epoch) if len(self.datasets) == 1 else (self.seed, 1 + dataset, epoch)
        rng = np.random.default_rng(key)
        if not self.shards_at_once:
            return rng.permutation(shards.sum())
        ends, order = np.cumsum(shards), rng.permutation(len(shards))
        together = (
            order[i : i + self.shards_at_once] for i in range(0, len(order), self.shards_at_once)
        )
        return np.concatenate(
            [
                rng.permutation(
                    np.concatenate([np.arange(ends[n] - shards[n], ends[n]) for n in group])
                )
                for group in together
            ]
        )


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
