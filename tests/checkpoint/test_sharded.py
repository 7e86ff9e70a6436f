"""Checkpoints that are folders, written and read by one process; by several: test_parallel."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from semsam.checkpoint.checkpointer import Checkpointer
from semsam.checkpoint.frozen import FrozenParts
from semsam.checkpoint.loading import read_checkpoint
from semsam.checkpoint.sharded import consolidate


def weight_of(value):
    return nn.ParameterDict({"weight": nn.Parameter(torch.full((1,), value))})


def saved(folder, value, iteration, keep=0):
    """A folder-writing checkpointer whose weight had this value at an iteration."""
    with Checkpointer(weight_of(value), folder, keep=keep, shards=True) as checkpointer:
        checkpointer.save(f"model_{iteration:07d}", iteration=iteration)


@pytest.mark.parametrize("pattern", [".metadata", "*.distcp", "rest.pth", "checksums.json"])
@pytest.mark.parametrize("how", ["gone", "one byte wrong"])
def test_a_damaged_folder_is_named_and_the_one_before_used(tmp_path, caplog, pattern, how):
    saved(tmp_path, 3.0, 4)
    saved(tmp_path, 1.0, 9)
    (path,) = (tmp_path / "model_0000009").glob(pattern)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    if how == "gone":
        path.unlink()
    fresh = Checkpointer(weight_of(0.0), tmp_path, shards=True)
    assert fresh.resume()["iteration"] == 4
    assert fresh.model["weight"].item() == 3.0
    assert "model_0000009 is damaged" in caplog.text


def test_the_newest_folders_are_kept(tmp_path):
    for iteration in (1, 2, 3):
        saved(tmp_path, 1.0, iteration, keep=2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["last_checkpoint", "model_0000002", "model_0000003"]


class Tied(nn.Module):
    """One weight with two names, one that does not learn, and a buffer."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(3, 2), nn.Linear(2, 3, bias=False)
        self.head.weight = self.embed.weight
        self.backbone = nn.BatchNorm1d(2)


def test_a_folder_becomes_one_file_with_every_name_and_without_what_is_frozen(tmp_path):
    model = Tied()
    frozen = FrozenParts(("backbone.",), "backbone.pth")
    with Checkpointer(model, tmp_path, frozen=frozen, shards=True) as checkpointer:
        checkpointer.save("model_0000004", iteration=4)
    file = tmp_path / "out.pth"
    tool = Path(__file__).parents[2] / "tools/consolidate_checkpoint.py"
    subprocess.run([sys.executable, tool, tmp_path / "model_0000004", file], check=True)
    tensors, found = read_checkpoint(file)
    assert tensors.keys() == {"embed.weight", "head.weight"}
    assert all(torch.equal(value, model.embed.weight) for value in tensors.values())
    assert found == checkpointer.frozen
    assert found.sha256
    with pytest.raises(ValueError, match="holds no whole checkpoint"):
        consolidate(tmp_path, file)
