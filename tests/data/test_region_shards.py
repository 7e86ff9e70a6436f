import pickle
import runpy
from pathlib import Path

import numpy as np
import pytest

from semsam.data import DatasetCatalog, MetadataCatalog
from semsam.data.datasets.regions import RegionRecords, RegionsTsv, region_row
from semsam.data.datasets.sa1b import Sa1bTsv
from semsam.data.datasets.shard_list import PROGRESS, list_shards
from semsam.data.datasets.shard_writer import TAR, pack_shards
from semsam.data.datasets.tar import TarShard
from semsam.data.datasets.tsv import write_tsv
from semsam.data.datasets.visual_genome import load_visual_genome
from semsam.data.records import BadRecordError, LazyImage
from tests.data.region_files import vg_region, write_visual_genome

PREPARE = Path(__file__).parents[2] / "datasets" / "prepare_regions.py"
REGIONS = {2: [vg_region(20, 'tab\t, "quotes" and é'), vg_region(21)], 3: [vg_region(30)]}


def prepare(*arguments):
    """Run the script; returns its exit code."""
    return runpy.run_path(str(PREPARE))["main"]([str(argument) for argument in arguments])


@pytest.fixture
def dataset(tmp_path):
    return f"visual_genome://{write_visual_genome(tmp_path / 'vg', REGIONS)}?split=test"


def test_packed_records_are_those_of_the_dataset(tmp_path, dataset):
    assert prepare(dataset, "--output", tmp_path / "shards", "--rows-per-shard", 1) == 0
    assert len(list_shards(tmp_path / "shards")) == 2
    name = f"regions_tsv://{tmp_path / 'shards'}"
    packed, original = DatasetCatalog.get(name), DatasetCatalog.get(dataset)
    assert MetadataCatalog.get(name).mapper == "CaptionMapper"
    assert len(packed) == len(original) == 2
    for one, other in zip(packed, original, strict=True):
        pixels, expected = (np.asarray(LazyImage(record).decode()) for record in (one, other))
        assert np.array_equal(pixels, expected)
        for key in ("image_id", "height", "width", "regions"):
            assert one[key] == other[key]


def test_what_is_left_out_is_named_and_the_rest_packed(tmp_path, dataset, capsys):
    (tmp_path / "vg" / "VG_100K_2" / "2.jpg").write_bytes(b"no image")
    assert prepare(dataset, "--output", tmp_path / "shards") == 1
    assert "left out: " in capsys.readouterr().err
    assert [record["image_id"] for record in RegionsTsv(tmp_path / "shards")] == [3]


def test_an_unknown_dataset_or_a_packed_folder_ends_with_a_message(tmp_path, dataset, capsys):
    with pytest.raises(SystemExit):
        prepare("visual_genom:///x", "--output", tmp_path / "shards")
    assert "did you mean 'visual_genome'" in capsys.readouterr().err
    prepare(dataset, "--output", tmp_path / "shards")
    with pytest.raises(SystemExit):
        prepare(dataset, "--output", tmp_path / "shards")
    assert "the folder is packed" in capsys.readouterr().err


def test_a_row_that_does_not_parse_says_where_it_is(tmp_path):
    rows = [[b"1", b'{"image_id": 1, "height": 2, "width": 2}', b""], [b"2", b"{", b""]]
    write_tsv(tmp_path / "s.tsv", rows)
    for row, reason in enumerate(["regions", "JSONDecodeError"]):
        with pytest.raises(BadRecordError, match=rf"s\.tsv:{row}: .*{reason}"):
            RegionsTsv(tmp_path)[row]


def test_a_record_whose_photo_has_another_size_is_no_row(tmp_path):
    record = load_visual_genome(write_visual_genome(tmp_path, REGIONS))[0]
    with pytest.raises(BadRecordError, match=r"2\.jpg.*\(40, 60\)"):
        region_row({**record, "width": 61})


class Stopped(Exception):
    pass


def rows_until(stop, seen):
    """Makes a row of an item; notes it, finds item 1 bad and stops at ``stop``."""

    def make_row(item):
        seen.append(item)
        if item == stop:
            raise Stopped
        if item == 1:
            raise BadRecordError("item 1 is bad")
        return [str(item).encode()]

    return make_row


def test_a_run_that_was_stopped_continues_after_the_last_whole_shard(tmp_path):
    first, second = [], []
    with pytest.raises(Stopped):
        pack_shards(range(7), rows_until(5, first), tmp_path, 2, "s", "numbers")
    assert first == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="is packed in part"):
        list_shards(tmp_path)
    left_out = pack_shards(range(7), rows_until(None, second), tmp_path, 2, "s", "numbers")
    # 0 and 2 were a whole shard; 3 and 4 became one before 5 stopped the run.
    assert second == [5, 6]
    assert left_out == ["item 1 is bad"]
    content = b"".join(path.read_bytes() for path in list_shards(tmp_path))
    assert content.split() == [b"0", b"2", b"3", b"4", b"5", b"6"]
    assert not (tmp_path / PROGRESS).exists()


def test_a_run_of_tar_shards_continues_as_well_but_not_as_another_format(tmp_path):
    def rows(stop):
        make_row = rows_until(stop, [])
        return lambda item: {"txt": make_row(item)[0]}

    with pytest.raises(Stopped):
        pack_shards(range(7), rows(5), tmp_path, 2, "s", "numbers", TAR)
    with pytest.raises(ValueError, match="of a run with another format"):
        pack_shards(range(7), rows_until(None, []), tmp_path, 2, "s", "numbers")
    pack_shards(range(7), rows(None), tmp_path, 2, "s", "numbers", TAR)
    shards = [TarShard(path) for path in list_shards(tmp_path, ".tar")]
    texts = [shard.read(row, ["txt"])["txt"] for shard in shards for row in range(len(shard))]
    assert texts == [b"0", b"2", b"3", b"4", b"5", b"6"]


def test_a_run_with_other_arguments_does_not_continue(tmp_path):
    with pytest.raises(Stopped):
        pack_shards(range(7), rows_until(5, []), tmp_path, 2, "s", "numbers")
    with pytest.raises(ValueError, match=r"progress\.json' is of a run with another source"):
        pack_shards(range(7), rows_until(None, []), tmp_path, 2, "s", "other numbers")


@pytest.mark.parametrize("kind", [RegionsTsv, Sa1bTsv])
def test_shards_can_be_sent_to_a_worker_that_is_not_forked(tmp_path, kind):
    column = b'{"image_id": 1, "height": 2, "width": 2, "regions": [], "annotations": []}'
    write_tsv(tmp_path / "s.tsv", [[b"1", column, b""]])
    records = kind(tmp_path)
    assert pickle.loads(pickle.dumps(records))[0] == records[0]


def test_records_in_the_buffer_come_back_by_number():
    records = RegionRecords([{"image_id": number, "text": "é" * number} for number in range(4)])
    assert len(records) == 4
    assert [record["image_id"] for record in records] == [0, 1, 2, 3]
    assert records[-1] == {"image_id": 3, "text": "ééé"}
    with pytest.raises(IndexError):
        records[4]
