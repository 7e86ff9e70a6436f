from itertools import chain, islice

import pytest

from semsam.data.samplers import InferenceSampler, MixtureSampler, TrainingSampler


def take(number, *args, **kwargs):
    return list(islice(TrainingSampler(*args, **kwargs), number))


def test_each_epoch_is_every_row_once_in_its_own_order():
    rows = [row for _, row in take(30, 10, seed=1)]
    epochs = [rows[:10], rows[10:20], rows[20:]]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert rows != [row for _, row in take(30, 10, seed=2)]


def test_ranks_share_one_stream():
    alone = take(24, 7, seed=3)
    ranks = [take(8, 7, seed=3, rank=rank, world_size=3) for rank in range(3)]
    assert sorted(chain(*ranks)) == alone


def test_a_sampler_continues_where_another_stopped():
    assert take(20, 7, seed=3)[12:] == take(8, 7, seed=3, start=12)


def test_training_needs_rows():
    with pytest.raises(ValueError, match="at least one row"):
        TrainingSampler(0, seed=0)


@pytest.mark.parametrize(("rows", "world_size"), [(10, 1), (10, 3), (2, 4), (0, 2)])
def test_evaluation_sees_each_row_once(rows, world_size):
    shares = [list(InferenceSampler(rows, rank, world_size)) for rank in range(world_size)]
    assert list(chain(*shares)) == list(range(rows))


def mixed(number, *args, **kwargs):
    return list(islice(MixtureSampler(*args, **kwargs), number))


def test_each_dataset_has_its_share_of_every_round_and_sees_its_rows_once_an_epoch():
    rows = [row for _, row in mixed(60, [3, 40], [1, 4], seed=1)]
    first = [row for row in rows if row < 3]
    assert all(sum(row < 3 for row in rows[i : i + 5]) == 1 for i in range(0, 60, 5))
    assert all(sorted(first[i : i + 3]) == [0, 1, 2] for i in range(0, 12, 3))
    second = [row - 3 for row in rows if row >= 3]
    assert sorted(second[:40]) == list(range(40))
    assert len({tuple(row < 3 for row in rows[i : i + 5]) for i in range(0, 60, 5)}) > 1


def test_ranks_share_a_mixture_and_continue_it():
    alone = mixed(36, [7, 5], [2, 1], seed=3)
    ranks = [mixed(12, [7, 5], [2, 1], seed=3, rank=rank, world_size=3) for rank in range(3)]
    assert sorted(chain(*ranks)) == alone
    assert mixed(16, [7, 5], [2, 1], seed=3, start=20) == alone[20:]


@pytest.mark.parametrize("shares", [[1], [1, 0], [1, 2, 3]])
def test_shares_are_one_a_dataset_and_positive(shares):
    with pytest.raises(ValueError, match="2 datasets have as many"):
        MixtureSampler([3, 4], shares, seed=0)
