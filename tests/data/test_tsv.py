import json
import uuid

import pytest

from semsam.data.datasets.shard_list import (
    Manifest,
    ShardFile,
    holds_shards,
    list_shards,
    read_manifest,
    write_manifest,
)
from semsam.data.datasets.tsv import TsvFile, TsvRecords, write_tsv
from semsam.utils.storage import as_path
from tests.data.shard_files import write_list

ROWS = [[b"a", b"1"], ["é€".encode(), b"22"], [b"c", b""]]


def test_rows_come_back_as_written(tmp_path):
    assert write_tsv(tmp_path / "x.tsv", ROWS) == 3
    file = TsvFile(tmp_path / "x.tsv")
    assert [file[row] for row in range(len(file))] == ROWS
    assert file[-1] == ROWS[-1]
    with pytest.raises(IndexError):
        file[3]


def test_a_row_is_read_by_its_place_alone_and_its_start_without_the_rest(tmp_path):
    write_tsv(tmp_path / "x.tsv", ROWS)
    file = TsvFile(tmp_path / "x.tsv")
    row = file.row(1)
    assert list(file.read_starts(3)) == [b"a\t1", "é€".encode()[:3], b"c\t\n"]
    (tmp_path / "x.lineidx").unlink()
    assert (str(row), row.num_bytes, row.read()) == (f"{tmp_path}/x.tsv:1", 9, ROWS[1])


def test_a_row_of_a_file_that_was_cut_is_noticed(tmp_path):
    write_tsv(tmp_path / "x.tsv", ROWS)
    row = TsvFile(tmp_path / "x.tsv").row(2)
    content = (tmp_path / "x.tsv").read_bytes()
    for number in (1, 2, 4):
        (tmp_path / "x.tsv").write_bytes(content[:-number])
        with pytest.raises(ValueError, match=r"x\.tsv' ends in row 2"):
            row.read()


@pytest.mark.parametrize("columns", [1, 2])
def test_an_index_may_have_one_column_or_two(tmp_path, columns):
    (tmp_path / "x.tsv").write_bytes(b"a\t1\nbb\t2\nc\t3")
    offsets = [(0, 4), (4, 5), (9, 3)]
    text = "".join("\t".join(map(str, pair[:columns])) + "\n" for pair in offsets)
    (tmp_path / "x.lineidx").write_text(text)
    file = TsvFile(tmp_path / "x.tsv")
    assert [file[row][0] for row in range(3)] == [b"a", b"bb", b"c"]


def test_an_index_that_counts_characters_is_noticed(tmp_path):
    write_tsv(tmp_path / "x.tsv", ROWS)
    (tmp_path / "x.lineidx").write_text("0\n4\n9\n")
    with pytest.raises(ValueError, match="counts no bytes"):
        TsvFile(tmp_path / "x.tsv")[1]


@pytest.mark.parametrize("index", ["", "0\n9\n5\n", "4\n8\n", "0\n99\n", "zero\n"])
def test_an_index_of_another_file_is_rejected(tmp_path, index):
    write_tsv(tmp_path / "x.tsv", ROWS)
    (tmp_path / "x.lineidx").write_text(index)
    with pytest.raises(ValueError, match=r"x\.lineidx"):
        TsvFile(tmp_path / "x.tsv")


def test_a_line_break_inside_a_column_is_rejected_and_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="row 1"):
        write_tsv(tmp_path / "x.tsv", [[b"a"], [b"b\nc"]])
    assert list(tmp_path.iterdir()) == []


def test_shards_are_in_order_of_their_names(tmp_path):
    for name in ("b.tsv", "a.tsv", "c.tsv"):
        write_tsv(tmp_path / name, ROWS)
    assert [shard.name for shard in list_shards(tmp_path)] == ["a.tsv", "b.tsv", "c.tsv"]
    write_list(tmp_path, ["c.tsv", "a.tsv"])
    assert [shard.name for shard in list_shards(tmp_path)] == ["a.tsv", "c.tsv"]


def test_a_manifest_comes_back_as_written_with_numbers_as_keys(tmp_path):
    metadata = {"thing_dataset_id_to_contiguous_id": {1: 0, 90: 1}, "thing_classes": ["a", "b"]}
    manifest = Manifest([ShardFile("a.tsv", 3, 20, "ff")], ["x://y"], metadata, ["b: bad"])
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert (manifest.rows, manifest.suffix) == (3, ".tsv")


@pytest.mark.parametrize(
    "change", [{"schema": 0}, {"shards": ["a.tsv"]}, {"shards": []}, {"metadata": None}]
)
def test_a_manifest_of_another_version_or_a_damaged_one_is_refused(tmp_path, change):
    write_list(tmp_path, ["a.tsv"])
    path = tmp_path / "shards.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=r"shards\.json' is no list of shards of this version"):
        read_manifest(tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match="JSONDecodeError"):
        list_shards(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="sa1b_tsv://"):
        read_manifest(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no \.tsv file"):
        list_shards(tmp_path)
    write_tsv(tmp_path / "a.tsv", ROWS)
    write_tsv(tmp_path / "b.tsv", ROWS)
    (tmp_path / "b.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.tsv"):
        list_shards(tmp_path)
    (tmp_path / "a.lineidx").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.lineidx"):
        TsvFile(tmp_path / "a.tsv")
    write_list(tmp_path, ["a.tsv", "z.tsv"])
    with pytest.raises(FileNotFoundError, match=r"z\.tsv"):
        list_shards(tmp_path)


def test_a_list_or_an_index_tells_a_folder_of_shards(tmp_path):
    (tmp_path / "table.tsv").write_text("a table\n")
    assert not holds_shards(tmp_path)
    assert not holds_shards(tmp_path / "table.tsv")
    write_tsv(tmp_path / "shards" / "x.tsv", ROWS)
    assert holds_shards(tmp_path / "shards")
    write_list(tmp_path, ["x.tsv"])
    assert holds_shards(tmp_path)


class NamesOnly(TsvRecords):
    @staticmethod
    def parse(text):
        return {"number": int(text)}


@pytest.fixture
def remote():
    """Two shards of three rows in fsspec's memory, a file system like any other to us."""
    folder = as_path(f"memory://{uuid.uuid4().hex}")
    folder.mkdir(parents=True)
    for shard in range(2):
        lines = [b"%d\t%d\taW1hZ2U=\n" % (row, row) for row in range(3 * shard, 3 * shard + 3)]
        (folder / f"{shard}.tsv").write_bytes(b"".join(lines))
        (folder / f"{shard}.lineidx").write_text("0\n13\n26\n")
    return folder


def test_shards_behind_a_url_are_read_like_those_of_this_machine(remote):
    records = NamesOnly(str(remote))
    assert records.shard_sizes.tolist() == [3, 3]
    assert [records[row]["number"] for row in range(6)] == list(range(6))
    assert records[4]["file_name"] == f"{remote}/1.tsv:1"
    (remote / "1.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"1\.tsv"):
        NamesOnly(str(remote))


def test_rows_behind_a_url_are_kept_up_to_a_number_of_bytes(remote, tmp_path):
    def number_kept(folder, **options):
        records = NamesOnly(str(remote), cache=folder, **options)
        assert [records[row]["number"] for row in range(6)] == list(range(6))
        return sum(path.is_file() for path in folder.rglob("*"))

    assert number_kept(tmp_path / "all") == 6
    assert number_kept(tmp_path / "some", cache_gb="3.9e-8") < 6
    with pytest.raises(ValueError, match="positive"):
        NamesOnly(str(remote), cache=tmp_path, cache_gb="0")
