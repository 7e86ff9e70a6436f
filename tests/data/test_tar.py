import gzip
import io
import os
import pickle
import tarfile

import pytest

from semsam.data.datasets.shard_list import list_shards
from semsam.data.datasets.tar import TarRecords, TarShard, write_tar
from semsam.data.records import BadRecordError
from tests.data.shard_files import write_list

SAMPLES = [{"jpg": b"j" * 700, "json": b"{}"}, {"png": b"p", "a.npy": b"123", "json": b"[]"}]
KINDS = ("jpg", "png", "json", "a.npy")


def write_members(path, *members):
    """A tar file of (name, content), in this order."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def samples(shard, kinds=KINDS):
    return {shard.name(item): shard.read(item, kinds) for item in range(len(shard))}


def test_samples_come_back_as_written_in_any_order(tmp_path):
    assert write_tar(tmp_path / "s.v2-00000.tar", SAMPLES) == 2
    shard = TarShard(tmp_path / "s.v2-00000.tar")
    assert [shard.read(item, KINDS) for item in (1, 0)] == SAMPLES[::-1]
    assert shard.read(1, ["json", "txt"]) == {"json": b"[]"}
    assert shard.name(1) == "s_v2-00000-000001"


def test_plain_tarfile_reads_what_is_written(tmp_path):
    write_tar(tmp_path / "s.tar", SAMPLES)
    with tarfile.open(tmp_path / "s.tar") as archive:
        read = {member.name: archive.extractfile(member).read() for member in archive}
    assert read == {
        f"s-{number:06d}.{kind}": content
        for number, sample in enumerate(SAMPLES)
        for kind, content in sample.items()
    }


def test_members_of_a_sample_need_not_be_neighbours_and_folders_part_samples(tmp_path):
    long = "x" * 150
    path = write_members(
        tmp_path / "s.tar",
        ("./b.jpg", b"1"),
        ("a/b.JPG", b"2"),
        (f"{long}.json", b"3"),
        ("b.json", b"4"),
        ("a/b.json", b"5"),
        ("日本.seg.png", b"6"),
        ("a/.hidden.jpg", b"7"),
        ("README", b"8"),
    )
    assert samples(TarShard(path), ["jpg", "json", "seg.png"]) == {
        "b": {"jpg": b"1", "json": b"4"},
        "a/b": {"jpg": b"2", "json": b"5"},
        long: {"json": b"3"},
        "日本": {"seg.png": b"6"},
    }


def test_the_index_is_kept_and_made_again_when_the_tar_file_is_another(tmp_path):
    path = write_members(tmp_path / "s.tar", ("a.jpg", b"1"))
    first = samples(TarShard(path))
    index = tmp_path / "s.taridx"
    kept = index.read_bytes()
    stamp = index.stat().st_mtime_ns
    assert samples(TarShard(path)) == first
    assert index.stat().st_mtime_ns == stamp
    write_members(path, ("b.jpg", b"2"))
    os.utime(path, ns=(0, 1))
    assert samples(TarShard(path)) == {"b": {"jpg": b"2"}}
    for damaged in (b"", kept[:100], b"no index", kept):
        index.write_bytes(damaged)
        assert samples(TarShard(path)) == {"b": {"jpg": b"2"}}


def test_an_index_that_cannot_be_written_stays_in_memory(tmp_path):
    path = write_members(tmp_path / "s.tar", ("a.jpg", b"1"))
    (tmp_path / "s.taridx").mkdir()
    assert samples(TarShard(path)) == {"a": {"jpg": b"1"}}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["s.tar", "s.taridx"]


def test_a_tar_file_cut_anywhere_is_refused_with_the_sample_it_ends_in(tmp_path):
    whole = write_tar(tmp_path / "s.tar", SAMPLES) and (tmp_path / "s.tar").read_bytes()
    with tarfile.open(tmp_path / "s.tar") as archive:
        members = archive.getmembers()
        end = archive.offset
    for size in range(512, end + 512, 256):
        (tmp_path / "s.tar").write_bytes(whole[:size])
        last = [member.name for member in members if member.offset_data <= size][-1]
        with pytest.raises(ValueError, match=rf"s\.tar' was cut.* '{last}'"):
            TarShard(tmp_path / "s.tar")
    (tmp_path / "s.tar").write_bytes(whole[: end + 512])
    assert list(samples(TarShard(tmp_path / "s.tar")).values()) == SAMPLES


def test_a_header_that_was_overwritten_does_not_end_the_file_silently(tmp_path):
    write_tar(tmp_path / "s.tar", SAMPLES)
    with tarfile.open(tmp_path / "s.tar") as archive:
        offset = archive.getmembers()[2].offset
    content = bytearray((tmp_path / "s.tar").read_bytes())
    content[offset : offset + 512] = b"\xff" * 512
    (tmp_path / "s.tar").write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged after 's-000000\.json'"):
        TarShard(tmp_path / "s.tar")


def test_what_is_no_tar_file_is_refused(tmp_path):
    path = write_members(tmp_path / "s.tar", ("a.jpg", b"1"))
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ValueError, match=r"s\.tar' is no tar file .* has to be unpacked"):
        TarShard(path)
    write_members(path, ("README", b"1"))
    with pytest.raises(ValueError, match=r"s\.tar' has no sample"):
        TarShard(path)
    with pytest.raises(FileNotFoundError, match=r"t\.tar' is missing"):
        TarShard(tmp_path / "t.tar")


def test_a_file_that_is_cut_later_is_noticed_where_it_is_read(tmp_path):
    write_tar(tmp_path / "s.tar", SAMPLES)
    shard = TarShard(tmp_path / "s.tar")
    os.truncate(tmp_path / "s.tar", 1000)
    with pytest.raises(ValueError, match=r"s\.tar' ends in its \.jpg"):
        shard.read(0, KINDS)


def read_json(record, members):
    return {"length": len(record["image_bytes"]), "text": members["json"].decode()}


def test_records_go_through_all_shards_and_a_bad_sample_is_bad_for_itself(tmp_path):
    write_tar(tmp_path / "a.tar", SAMPLES)
    write_tar(tmp_path / "b.tar", [{"json": b"{}"}, {"jpg": b"j"}, SAMPLES[0]])
    records = pickle.loads(pickle.dumps(TarRecords(tmp_path, ["json"], read_json)))
    assert len(records) == 5
    assert records[1]["image_id"] == "a-000001"
    assert records[1]["image_bytes"] == b"p"
    assert (records[1]["length"], records[1]["text"]) == (1, "[]")
    assert records[-1]["file_name"] == f"{tmp_path / 'b.tar'}:b-000002"
    with pytest.raises(BadRecordError, match=r"b\.tar:b-000000: .*no member is an image"):
        records[2]
    with pytest.raises(BadRecordError, match=r"b\.tar:b-000001: KeyError: 'json'"):
        records[3]
    with pytest.raises(IndexError):
        records[5]
    assert len(TarRecords(tmp_path / "a.tar", ["json"], read_json)) == 2


def test_a_missing_shard_or_one_of_another_kind_is_named(tmp_path):
    write_tar(tmp_path / "a.tar", SAMPLES)
    write_tar(tmp_path / "b.tar", SAMPLES)
    (tmp_path / "a.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.tar"):
        list_shards(tmp_path, ".tar")
    write_list(tmp_path, ["b.tar"])
    assert [shard.name for shard in list_shards(tmp_path, ".tar")] == ["b.tar"]
    with pytest.raises(ValueError, match=r"lists 'b\.tar', which is no \.tsv file"):
        list_shards(tmp_path)


def test_a_writer_that_is_stopped_leaves_no_file(tmp_path):
    def stop():
        yield SAMPLES[0]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_tar(tmp_path / "s.tar", stop())
    assert list(tmp_path.iterdir()) == []
