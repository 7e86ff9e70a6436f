import logging
import random

import pytest
import torch
from torch import nn

from semsam.checkpoint.checkpointer import Checkpointer, find_fault
from semsam.utils.env import seed_everything


def checkpointer(folder, value=0.0, keep=0):
    model = nn.Linear(2, 1)
    nn.init.constant_(model.weight, value)
    optimizer = torch.optim.SGD(model.parameters(), lr=value + 1, momentum=0.9)
    return Checkpointer(model, folder, parts={"optimizer": optimizer}, keep=keep)


def save(writer, name, **extra):
    """As ``save``, but the file is there."""
    with writer:
        writer.save(name, **extra)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def damage(path, how):
    data = path.read_bytes()
    middle = len(data) // 2
    damaged = {
        "cut short": data[:middle],
        "empty": b"",
        "zeros": bytes(len(data)),
        "garbage": random.Random(0).randbytes(len(data)),
        "one byte wrong": data.replace(b"\x00\x00\x80\x3f", b"\x00\x00\x80\x3e", 1),
    }[how]
    assert damaged != data
    path.write_bytes(damaged)


def test_resume_restores_the_model_and_the_parts(tmp_path):
    save(checkpointer(tmp_path, value=1.0), "model_0000004", iteration=4)
    fresh = checkpointer(tmp_path)
    state = fresh.resume()
    assert state["iteration"] == 4
    assert fresh.model.weight.tolist() == [[1.0, 1.0]]
    assert fresh.parts["optimizer"].param_groups[0]["lr"] == 2.0


def test_resume_without_a_checkpoint_gives_none(tmp_path):
    assert checkpointer(tmp_path).resume() is None


def test_the_pointer_names_the_newest_file(tmp_path):
    writer = checkpointer(tmp_path)
    save(writer, "model_0000004", iteration=4)
    save(writer, "model_final", iteration=5)
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert checkpointer(tmp_path).resume()["iteration"] == 5


@pytest.mark.parametrize("how", ["cut short", "empty", "zeros", "garbage", "one byte wrong"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_used(tmp_path, caplog, how):
    save(checkpointer(tmp_path, value=3.0), "model_0000004", iteration=4)
    save(checkpointer(tmp_path, value=1.0), "model_0000009", iteration=9)
    damage(tmp_path / "model_0000009.pth", how)
    fresh = checkpointer(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert fresh.resume()["iteration"] == 4
    assert fresh.model.weight.tolist() == [[3.0, 3.0]]
    assert "model_0000009.pth is damaged" in caplog.text


def test_no_whole_checkpoint_is_an_error(tmp_path):
    save(checkpointer(tmp_path), "model_0000004", iteration=4)
    damage(tmp_path / "model_0000004.pth", "empty")
    with pytest.raises(RuntimeError, match=r"no checkpoint .* is whole: model_0000004.pth \("):
        checkpointer(tmp_path).resume()


def test_a_lost_pointer_is_no_loss(tmp_path):
    writer = checkpointer(tmp_path)
    for iteration in (9, 10):
        save(writer, f"model_{iteration:07d}", iteration=iteration)
    (tmp_path / "last_checkpoint").unlink()
    assert checkpointer(tmp_path).resume()["iteration"] == 10


def test_checkpoints_of_an_earlier_longer_run_are_not_gone_on_from(tmp_path):
    save(checkpointer(tmp_path), "model_0000999", iteration=999)
    save(checkpointer(tmp_path), "model_0000004", iteration=4)
    damage(tmp_path / "model_0000004.pth", "empty")
    with pytest.raises(RuntimeError, match="is whole"):
        checkpointer(tmp_path).resume()


def test_the_newest_numbered_checkpoints_are_kept_and_the_final_one(tmp_path):
    writer = checkpointer(tmp_path, keep=2)
    for iteration in (1, 2, 3, 4):
        save(writer, f"model_{iteration:07d}", iteration=iteration)
    save(writer, "model_final", iteration=5)
    expected = ["last_checkpoint", "model_0000003.pth", "model_0000004.pth", "model_final.pth"]
    assert names(tmp_path) == expected


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    (tmp_path / ".model_0000001.pth.abc").write_bytes(b"half")
    save(checkpointer(tmp_path), "model_0000002", iteration=2)
    assert names(tmp_path) == ["last_checkpoint", "model_0000002.pth"]


def test_random_draws_go_on_after_the_rank_is_restored(tmp_path):
    seed_everything(1)
    save(checkpointer(tmp_path), "model_0000004", iteration=4)
    expected = torch.rand(3)
    fresh = checkpointer(tmp_path)
    fresh.restore_rank(fresh.resume()["ranks"])
    assert torch.equal(torch.rand(3), expected)


def test_another_number_of_processes_is_said(tmp_path, caplog):
    writer = checkpointer(tmp_path)
    with caplog.at_level(logging.WARNING):
        writer.restore_rank([{}, {}])
    assert "written by 2 processes, now there are 1" in caplog.text


def test_a_missing_part_is_an_error_that_names_it(tmp_path):
    save(Checkpointer(nn.Linear(2, 1), tmp_path), "model_0000004", iteration=4)
    with pytest.raises(RuntimeError, match="has no 'optimizer'"):
        checkpointer(tmp_path).resume()


def test_a_whole_file_has_no_fault(tmp_path):
    save(checkpointer(tmp_path), "model_final", iteration=5)
    assert find_fault(tmp_path / "model_final.pth") == ""
