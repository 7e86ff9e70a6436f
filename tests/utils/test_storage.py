import multiprocessing
import uuid

import pytest

from semsam.utils.storage import RangeCache, as_path, is_remote, read_range


@pytest.fixture
def remote():
    """A folder in fsspec's memory, which is a file system like any other to us."""
    folder = as_path(f"memory://{uuid.uuid4().hex}")
    folder.mkdir(parents=True)
    (folder / "rows.tsv").write_bytes(bytes(range(100)))
    return folder


def test_a_path_of_this_machine_stays_one_and_a_url_is_used_like_it(tmp_path, remote):
    assert as_path(tmp_path) == tmp_path
    assert not is_remote(as_path(str(tmp_path)))
    assert is_remote(remote)
    assert [path.name for path in remote.glob("*.tsv")] == ["rows.tsv"]
    assert (remote / "rows.tsv").with_suffix(".lineidx").name == "rows.lineidx"


@pytest.mark.parametrize("where", ["here", "there"])
def test_a_piece_of_a_file_is_read_and_what_is_missing_is_named(where, tmp_path, remote):
    folder = tmp_path if where == "here" else remote
    (folder / "rows.tsv").write_bytes(bytes(range(100)))
    assert read_range(folder / "rows.tsv", 5, 3) == bytes([5, 6, 7])
    assert read_range(folder / "rows.tsv", 98, 5) == bytes([98, 99])
    with pytest.raises(FileNotFoundError, match=r"absent\.tsv"):
        read_range(folder / "absent.tsv", 0, 1)


def test_an_unknown_scheme_is_an_error_that_names_the_url():
    with pytest.raises(ValueError, match="nowhere://x"):
        as_path("nowhere://x/y")


def test_a_cache_keeps_the_stated_share_of_pieces_always_the_same(tmp_path, remote):
    cache = RangeCache(tmp_path, 0.5)
    pieces = [cache.read(remote / "rows.tsv", offset, 1) for offset in range(100)]
    assert pieces == [bytes([i]) for i in range(100)]
    kept = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert 30 < len(kept) < 70
    (remote / "rows.tsv").unlink()
    found = 0
    for offset in range(100):
        try:
            assert cache.read(remote / "rows.tsv", offset, 1) == bytes([offset])
            found += 1
        except FileNotFoundError:
            pass
    assert found == len(kept)


def test_a_kept_piece_that_is_not_whole_is_read_again(tmp_path, remote):
    cache = RangeCache(tmp_path, 1.0)
    cache.read(remote / "rows.tsv", 10, 5)
    (kept,) = (path for path in tmp_path.rglob("*") if path.is_file())
    kept.write_bytes(b"")
    assert cache.read(remote / "rows.tsv", 10, 5) == bytes(range(10, 15))
    assert kept.read_bytes() == bytes(range(10, 15))


def test_files_of_this_machine_are_not_copied(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert RangeCache(tmp_path / "cache", 1.0).read(tmp_path / "x", 1, 2) == b"bc"
    assert not (tmp_path / "cache").exists()


def test_a_forked_worker_reads_a_url_that_its_parent_opened(remote):
    context = multiprocessing.get_context("fork")
    with context.Pool(1) as pool:
        assert pool.apply(read_range, (remote / "rows.tsv", 3, 2)) == bytes([3, 4])


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_one(share, tmp_path):
    with pytest.raises(ValueError, match="0 to 1"):
        RangeCache(tmp_path, share)
