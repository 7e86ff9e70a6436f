import errno
import resource
import shutil

import pytest
import torch

from semsam.checkpoint.checkpointer import tensor_bytes
from semsam.utils.file_io import atomic_write


def test_a_file_larger_than_the_free_space_is_refused_before_it_is_written(tmp_path):
    path = tmp_path / "large"
    needed = shutil.disk_usage(tmp_path).free + 2**40
    message = rf"needs at least {needed:,} bytes, of which 0 could be written.*free.*large"
    with pytest.raises(OSError, match=message) as error, atomic_write(path, "wb", needed):
        pass
    assert error.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def write(path, content):
    with atomic_write(path, "wb") as file:
        torch.save(content, file)


@pytest.fixture
def small_files():
    """Files may not grow beyond 2,000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_in_the_middle_leaves_the_old_file(tmp_path, small_files):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError, match=r"more than 2,000 bytes, of which 2,000 could.*'.*file'"):
        write(path, torch.zeros(10_000))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_bytes_of_nested_tensors_are_counted_once():
    tensor = torch.zeros(10, dtype=torch.float64)
    assert tensor_bytes({"a": tensor, "b": [tensor[:2], (torch.zeros(3), 1)], "c": "x"}) == 92
