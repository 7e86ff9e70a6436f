"""An index of 200,000 rows, as the mixing and the resuming of a large training see it."""

from itertools import chain, islice

import numpy as np
import pytest

from semsam.data.datasets.sa1b import Sa1bTsv
from semsam.data.datasets.tsv import write_tsv
from semsam.data.samplers import TrainingSampler
from semsam.data.shard_edit import merge_shards, split_shards

SHARDS, ROWS = 8, 25_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Shards of rows of a few bytes, numbered through."""
    folder = tmp_path_factory.mktemp("many")
    for shard in range(SHARDS):
        numbers = range(shard * ROWS, (shard + 1) * ROWS)
        write_tsv(folder / f"{shard}.tsv", ([b"%d" % n, b"[]", b"AA=="] for n in numbers))
    return folder


def numbers_of(folder):
    starts = chain.from_iterable(shard.read_starts(8) for shard in Sa1bTsv(folder).shards)
    return [int(start.split(b"\t")[0]) for start in starts]


@pytest.mark.parametrize("shards_at_once", [0, 2])
def test_it_is_mixed_with_another_data_set_and_goes_on_after_any_stop(folder, shards_at_once):
    sizes = [Sa1bTsv(folder).shard_sizes, np.array([1000])]
    stream = {"seed": 5, "shares": (4, 1), "shards_at_once": shards_at_once}
    number = 5 * SHARDS * ROWS // 4
    whole = list(islice(TrainingSampler(sizes, **stream), number))
    rows = np.array([row for _, row in whole])
    assert np.array_equal(np.sort(rows[rows < SHARDS * ROWS]), np.arange(SHARDS * ROWS))
    assert np.bincount(rows[rows >= SHARDS * ROWS] - SHARDS * ROWS).tolist() == [50] * 1000
    # Stopped on one process, the rest on seven.
    begun, each = 123_456, 2_000
    parts = [
        islice(TrainingSampler(sizes, **stream, rank=rank, world_size=7, start=begun), each)
        for rank in range(7)
    ]
    assert list(chain(*zip(*parts, strict=True))) == whole[begun : begun + 7 * each]


def test_its_rows_are_each_in_one_part_and_come_back_together(folder, tmp_path):
    parts = [tmp_path / "train", tmp_path / "val"]
    split_shards(folder, parts, [3, 1])
    every = [numbers_of(part) for part in parts]
    assert [len(numbers) for numbers in every] == [6 * ROWS, 2 * ROWS]
    assert sorted(chain(*every)) == list(range(SHARDS * ROWS))
    merge_shards(parts, tmp_path / "again")
    assert numbers_of(tmp_path / "again") == list(chain(*every))
