from itertools import chain, islice

import pytest

from semsam.data.samplers import InferenceSampler, TrainingSampler


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
