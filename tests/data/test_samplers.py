from collections import Counter
from itertools import chain, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semsam.data.samplers import InferenceSampler, TrainingSampler


def take(number, *args, **kwargs):
    return list(islice(TrainingSampler(*args, **kwargs), number))


#: Datasets of shards of rows; none is empty.
DATASETS = st.lists(
    st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any), min_size=1, max_size=4
)


@st.composite
def streams(draw):
    """Arguments that say what a stream is, whoever reads it."""
    datasets = draw(DATASETS)
    shares = draw(
        st.none() | st.lists(st.integers(1, 4), min_size=len(datasets), max_size=len(datasets))
    )
    return {
        "datasets": datasets,
        "seed": draw(st.integers(0, 2**32 - 1)),
        "shares": shares or (),
        "shards_at_once": draw(st.integers(0, 3)),
    }


@given(streams(), st.lists(st.tuples(st.integers(1, 5), st.integers(1, 9)), min_size=1, max_size=5))
def test_runs_that_are_killed_and_resized_see_what_one_unbroken_process_sees(stream, runs):
    """A run is its number of ranks and how many samples each of them used before it was killed."""
    seen = []
    for ranks, each in runs:
        parts = [
            take(each, **stream, rank=rank, world_size=ranks, start=len(seen))
            for rank in range(ranks)
        ]
        seen += chain(*zip(*parts, strict=True))
    assert seen == take(len(seen), **stream)


@given(streams(), st.integers(1, 3))
def test_an_epoch_of_each_dataset_has_each_of_its_rows_once(stream, epochs):
    sizes = [sum(shards) for shards in stream["datasets"]]
    shares = stream["shares"] or sizes
    # Rounds until the slowest dataset has had its epochs.
    rounds = max(-(-epochs * size // share) for size, share in zip(sizes, shares, strict=True))
    rows = [row for _, row in take(rounds * sum(shares), **stream)]
    end = 0
    for size in sizes:
        begin, end = end, end + size
        own = [row for row in rows if begin <= row < end]
        for epoch in range(epochs):
            assert sorted(own[epoch * size : (epoch + 1) * size]) == list(range(begin, end))


@given(streams().filter(lambda stream: stream["shares"]), st.integers(1, 4))
def test_each_round_has_each_dataset_as_often_as_its_share_says(stream, rounds):
    ends = np.cumsum([sum(shards) for shards in stream["datasets"]])
    length = sum(stream["shares"])
    rows = [row for _, row in take(rounds * length, **stream)]
    for start in range(0, len(rows), length):
        counts = Counter(np.searchsorted(ends, rows[start : start + length], side="right").tolist())
        assert [counts[i] for i in range(len(ends))] == list(stream["shares"])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 3), st.integers(0, 99))
def test_few_shards_are_read_at_a_time(shards, at_once, seed):
    rows = [row for _, row in take(sum(shards), [shards], seed, shards_at_once=at_once)]
    numbers = np.searchsorted(np.cumsum(shards), rows, side="right")
    places = [np.flatnonzero(numbers == number) for number in range(len(shards))]
    for position in range(len(rows)):
        assert sum(own[0] <= position <= own[-1] for own in places) <= at_once


def test_each_epoch_has_its_own_order_and_each_seed_its_own_stream():
    rows = [row for _, row in take(30, [[10]], seed=1)]
    assert rows[:10] != rows[10:20]
    assert rows != [row for _, row in take(30, [[10]], seed=2)]


@pytest.mark.parametrize("datasets", [[[]], [[0]], [[3], []]])
def test_training_needs_rows_of_each_dataset_that_has_a_share(datasets):
    with pytest.raises(ValueError, match="at least one row"):
        TrainingSampler(datasets, seed=0, shares=[1] * len(datasets))


@pytest.mark.parametrize("shares", [[1], [1, 0], [1, 2, 3]])
def test_shares_are_one_a_dataset_and_positive(shares):
    with pytest.raises(ValueError, match="2 datasets have as many"):
        TrainingSampler([[3], [4]], seed=0, shares=shares)


def test_a_negative_number_of_shards_is_refused():
    with pytest.raises(ValueError, match="not -1"):
        TrainingSampler([[3]], seed=0, shards_at_once=-1)


@settings(max_examples=50)
@given(st.integers(0, 40), st.integers(1, 9))
def test_evaluation_sees_each_row_once(rows, world_size):
    shares = [list(InferenceSampler(rows, rank, world_size)) for rank in range(world_size)]
    assert list(chain(*shares)) == list(range(rows))
