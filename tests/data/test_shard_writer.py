import contextlib
import errno
import hashlib
import multiprocessing
import os
import random
import resource
import signal
import time

import pytest

from semsam.data.datasets.shard_list import PROGRESS, list_shards, read_manifest
from semsam.data.datasets.shard_writer import TAR, pack_shards
from semsam.data.datasets.tar import TarShard
from semsam.data.records import BadRecordError


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
        return [str(item).encode()] if item != 6 else None

    return make_row


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_run_that_was_stopped_continues_with_the_shards_that_are_missing(tmp_path):
    first, second = [], []
    with pytest.raises(Stopped):
        pack_shards(range(9), rows_until(5, first), tmp_path, 2, "s", ["numbers"])
    assert first == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="is packed in part"):
        list_shards(tmp_path)
    (tmp_path / "s-00000.tsv").unlink()
    (tmp_path / ".s-00002.tsv.unfinished").write_text("killed here")
    packed = pack_shards(range(9), rows_until(None, second), tmp_path, 2, "s", ["numbers"])
    # 2 and 3 are a whole shard; of 0 and 1 the shard is gone.
    assert second == [0, 1, 4, 5, 6, 7, 8]
    assert packed.left_out == ["item 1 is bad"]
    assert [shard.rows for shard in packed.shards] == [1, 2, 2, 1, 1]
    assert b"".join(path.read_bytes() for path in list_shards(tmp_path)).split() == [
        *(b"0", b"2", b"3", b"4", b"5", b"7", b"8"),
    ]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "shards.json",
        *(f"s-{number:05d}{suffix}" for number in range(5) for suffix in (".tsv", ".lineidx")),
    }


def test_the_list_has_size_and_checksum_of_each_shard(tmp_path):
    metadata = {"mapper": "PromptableMapper"}
    packed = pack_shards(
        range(5), rows_until(None, []), tmp_path, 2, "s", ["numbers"], metadata=metadata
    )
    assert read_manifest(tmp_path) == packed
    assert (packed.source, packed.metadata, packed.rows) == (["numbers"], metadata, 4)
    for shard in packed.shards:
        file = (tmp_path / shard.name).read_bytes()
        assert (shard.bytes, shard.sha256) == (len(file), hashlib.sha256(file).hexdigest())


@pytest.mark.parametrize("workers", [2, 5])
def test_any_number_of_workers_leaves_the_same_files(tmp_path, workers):
    for number in (1, workers):
        pack_shards(
            range(23),
            rows_until(None, []),
            tmp_path / str(number),
            2,
            "s",
            ["numbers"],
            num_workers=number,
        )
    assert content(tmp_path / "1") == content(tmp_path / str(workers))


def test_shards_whose_items_are_all_left_out_are_none(tmp_path):
    packed = pack_shards(range(3), rows_until(None, []), tmp_path, 1, "s", ["numbers"])
    assert [shard.name for shard in packed.shards] == ["s-00000.tsv", "s-00002.tsv"]
    with pytest.raises(FileNotFoundError, match="no usable image in numbers, first item 1 is bad"):
        pack_shards([1], rows_until(None, []), tmp_path / "bad", 1, "s", ["numbers"])


def test_a_run_of_tar_shards_continues_as_well_but_not_as_another_format(tmp_path):
    def rows(stop):
        make_row = rows_until(stop, [])
        return lambda item: (row := make_row(item)) and {"txt": row[0]}

    with pytest.raises(Stopped):
        pack_shards(range(9), rows(5), tmp_path, 2, "s", ["numbers"], TAR)
    with pytest.raises(ValueError, match=r"of a run with another format, \.tar"):
        pack_shards(range(9), rows_until(None, []), tmp_path, 2, "s", ["numbers"])
    pack_shards(range(9), rows(None), tmp_path, 2, "s", ["numbers"], TAR, num_workers=2)
    shards = [TarShard(path) for path in list_shards(tmp_path, ".tar")]
    texts = [shard.read(row, ["txt"])["txt"] for shard in shards for row in range(len(shard))]
    assert texts == [b"0", b"2", b"3", b"4", b"5", b"7", b"8"]


def test_a_run_with_other_arguments_does_not_continue(tmp_path):
    with pytest.raises(Stopped):
        pack_shards(range(7), rows_until(5, []), tmp_path, 2, "s", ["numbers"])
    for items, rows, source in ((7, 2, "others"), (7, 3, "numbers"), (8, 2, "numbers")):
        with pytest.raises(ValueError, match=r"progress\.json' is of a run with another"):
            pack_shards(range(items), rows_until(None, []), tmp_path, rows, "s", [source])
    with pytest.raises(ValueError, match="1 at least"):
        pack_shards(range(7), rows_until(None, []), tmp_path, 0, "s", ["numbers"])


def test_a_packed_folder_is_left_alone_and_one_all_but_tidied_is_tidied(tmp_path):
    arguments = (range(5), rows_until(None, []), tmp_path, 2, "s", ["numbers"])
    packed = pack_shards(*arguments)
    with pytest.raises(ValueError, match="the folder is packed"):
        pack_shards(*arguments)
    whole = content(tmp_path)
    (tmp_path / PROGRESS).write_text(
        '{"source": ["numbers"], "images": 5, "rows_per_shard": 2, "name": "s", "format": ".tsv"}'
    )
    (tmp_path / "s-00000.tsv.json").write_text("{}")
    assert pack_shards(*arguments) == packed
    assert content(tmp_path) == whole


def test_a_full_disk_is_an_error_and_what_is_whole_stays(tmp_path):
    def make_row(item):
        # A limit on the size of files stands in for the full disk.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limit = 1000 if item >= 4 else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        return [b"x" * 20000]

    with pytest.raises(OSError, match=r"s-00002\.tsv|s-00003\.tsv") as info:
        pack_shards(range(8), make_row, tmp_path, 2, "s", ["numbers"], num_workers=2)
    assert info.value.errno == errno.ENOSPC
    assert (tmp_path / "s-00000.tsv").stat().st_size == 2 * 20001
    pack_shards(range(8), lambda item: [b"x" * 20000], tmp_path, 2, "s", ["numbers"])
    assert len(list_shards(tmp_path)) == 4


def test_a_worker_that_dies_is_an_error_and_the_run_can_be_repeated(tmp_path):
    def make_row(item):
        if item == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return [str(item).encode()]

    with pytest.raises(RuntimeError, match="killed by SIGKILL"):
        pack_shards(range(8), make_row, tmp_path, 2, "s", ["numbers"], num_workers=2)
    pack_shards(range(8), lambda item: [b"%d" % item], tmp_path, 2, "s", ["numbers"])
    assert b"".join(f.read_bytes() for f in list_shards(tmp_path)).split() == [
        b"%d" % item for item in range(8)
    ]


def slow_row(item):
    time.sleep(0.004)
    if item % 11 == 3:
        raise BadRecordError(f"item {item} is bad")
    return [str(item).encode(), b"x" * (item * 97 % 500)]


def run_by_itself(output, workers):
    """A process with a group of its own."""

    def run():
        os.setsid()
        pack_shards(range(300), slow_row, output, 7, "s", ["numbers"], num_workers=workers)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    while os.getpgid(process.pid) != process.pid:
        time.sleep(0.001)
    return process


def finish(process):
    process.join()
    return process.exitcode


@pytest.mark.parametrize("seed", range(3))
def test_a_run_that_is_killed_again_and_again_leaves_what_an_unbroken_one_leaves(tmp_path, seed):
    assert finish(run_by_itself(tmp_path / "unbroken", 3)) == 0
    killed = tmp_path / "killed"

    def count_whole():
        return len(list(killed.glob("s-*.tsv.json")))

    rng = random.Random(seed)
    codes = []
    for _ in range(4):
        before = count_whole()
        process = run_by_itself(killed, rng.randint(1, 4))
        wanted = before + rng.randint(0, 5)
        while process.is_alive() and count_whole() < wanted:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))
        # The parent alone, or its workers with it; on a busy machine it may have come to its end.
        with contextlib.suppress(ProcessLookupError):
            (os.kill if rng.random() < 0.5 else os.killpg)(process.pid, signal.SIGKILL)
        codes.append(finish(process))
        if codes[-1] == 0:
            break
        assert count_whole() >= before
    assert codes[0] == -signal.SIGKILL
    if codes[-1] != 0:
        assert finish(run_by_itself(killed, 2)) == 0
    assert content(killed) == content(tmp_path / "unbroken")
