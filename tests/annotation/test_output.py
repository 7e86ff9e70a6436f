import json
import os

import numpy as np
import pytest

from semsam.annotation.mask_sources import Sa1bMasks
from semsam.annotation.output import OutputFolder, ResultWriter, sole_run

from .photos import SIZE, write_photos

MANIFEST = {"semsam": "1", "labelers": {"Clip": {"sha256": "aa"}}, "sizes": (1, 2)}
RESULT = {"annotations": [{"class_name": "cat"}, {"class_name": None}]}


@pytest.fixture
def items(tmp_path):
    return Sa1bMasks(write_photos(tmp_path / "images", 3)).items()


@pytest.fixture
def open_folder(tmp_path, items):
    def call(manifest=MANIFEST, resume=True):
        return OutputFolder(tmp_path / "out", manifest, items, resume)

    return call


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_photo_is_known_after_a_restart(open_folder, items):
    open_folder().write(items[0], RESULT, 1, SIZE)
    again = open_folder()
    assert [again.is_finished(item) for item in items] == [True, False, False]
    assert json.loads(again.result_path("photo_0").read_text()) == RESULT


def test_a_half_written_missing_or_foreign_result_is_done_again(open_folder, items):
    folder = open_folder()
    for item in items:
        folder.write(item, RESULT, 1, SIZE)
    path = folder.result_path("photo_0")
    path.write_bytes(path.read_bytes()[:-3])
    folder.result_path("photo_1").unlink()
    items[2].image.write_bytes(b"another photo")
    again = open_folder()
    assert [again.is_finished(item) for item in items] == [False, False, False]


def test_a_photo_whose_result_is_lost_and_that_fails_now_is_a_failure(open_folder, items):
    folder = open_folder()
    folder.write(items[0], RESULT, 1, SIZE)
    folder.result_path("photo_0").unlink()
    folder = open_folder()
    assert [folder.claim(item) for item in items] == [True, True, True]
    folder.fail(items[0], "read", "damaged")
    summary = folder.close()
    assert (summary.finished, summary.failed) == (0, 1)


def test_a_result_that_lacks_its_picture_only_still_counts(open_folder, items):
    open_folder().write(items[0], RESULT, 1, SIZE)
    assert open_folder().claim(items[0], with_picture=True)
    assert not open_folder().claim(items[0])


def test_a_result_that_was_edited_by_hand_is_kept(open_folder, items):
    folder = open_folder()
    folder.write(items[0], RESULT, 1, SIZE)
    folder.result_path("photo_0").write_text('{"annotations": [{"class_name": "dog"}]}')
    assert open_folder().is_finished(items[0])


def test_a_picture_that_is_wanted_and_missing_is_made(open_folder, items):
    folder = open_folder()
    folder.write(items[0], RESULT, 1, SIZE)
    folder.write(items[1], RESULT, 1, SIZE, picture=b"png")
    again = open_folder()
    assert not again.is_finished(items[0], with_picture=True)
    assert again.is_finished(items[1], with_picture=True)


def test_a_journal_line_that_was_cut_short_is_left_out_and_nothing_else(open_folder, items):
    folder = open_folder()
    for item in items[:2]:
        folder.write(item, RESULT, 1, SIZE)
    journal = folder.folder / "journal.jsonl"
    os.truncate(journal, journal.stat().st_size - 5)
    again = open_folder()
    assert [again.is_finished(item) for item in items] == [True, False, False]
    again.write(items[1], RESULT, 1, SIZE)
    assert open_folder().is_finished(items[1])


def test_what_a_killed_run_was_writing_is_swept_and_nothing_else(open_folder, tmp_path):
    folder = tmp_path / "out"
    (folder / "sub").mkdir(parents=True)
    for name in ("sub/.photo_0_semantic.json.ab_1", ".manifest.json.x", ".journal.jsonl.y"):
        (folder / name).write_text("{")
    (folder / ".keep").write_text("mine")
    open_folder()
    assert set(files(folder)) == {"manifest.json", ".keep"}


def test_failures_are_replaced_and_vanish_when_the_photo_is_done(open_folder, items):
    folder = open_folder()
    folder.fail(items[0], "read", "damaged")
    folder.fail(items[1], "read", "damaged")
    summary = folder.close()
    assert (summary.photos, summary.finished, summary.failed) == (3, 0, 2)
    assert summary.reasons == [("read: damaged", 2)]

    folder = open_folder()
    folder.fail(items[1], "Clip", "too small")
    folder.write(items[0], RESULT, 1, SIZE)
    summary = folder.close()
    assert (summary.finished, summary.failed, summary.masks, summary.labelled) == (1, 1, 2, 1)
    lines = [json.loads(t) for t in (folder.folder / "failures.jsonl").read_text().splitlines()]
    assert lines == [
        {
            "name": "photo_1",
            "image": str(items[1].image),
            "stage": "Clip",
            "reason": "too small",
        }
    ]

    folder = open_folder()
    folder.write(items[1], RESULT, 1, SIZE)
    folder.close()
    assert not (folder.folder / "failures.jsonl").exists()


def test_workers_leave_the_folder_that_one_leaves(open_folder, items, tmp_path):
    alone = open_folder()
    for item in items:
        alone.write(item, RESULT, 1, SIZE)
    alone.close()
    expected = files(alone.folder)

    shared = OutputFolder(tmp_path / "shared", MANIFEST, items)
    other = ResultWriter(tmp_path / "shared", "rank1")
    other.write(items[2], RESULT, 1, SIZE)
    other.fail(items[1], "read", "first try")
    other.write(items[0], RESULT, 1, SIZE)
    assert (tmp_path / "shared" / "journal.rank1.jsonl").is_file()
    shared.write(items[1], RESULT, 1, SIZE)
    shared.close()
    assert files(tmp_path / "shared") == expected


def test_other_settings_are_one_error_that_says_what_differs(open_folder, items):
    open_folder().write(items[0], RESULT, 1, SIZE)
    other = {"semsam": "1", "labelers": {"Clip": {"sha256": "bb"}}, "device": "cpu"}
    with pytest.raises(ValueError, match="made otherwise") as error:
        open_folder(other)
    text = str(error.value)
    assert 'labelers.Clip.sha256 was "aa", is "bb"' in text
    assert "sizes was [1, 2], is nothing" in text
    assert 'device was nothing, is "cpu"' in text
    assert "--no-resume" in text
    assert open_folder().is_finished(items[0])


def test_without_resuming_everything_is_done_again(open_folder, items):
    folder = open_folder()
    folder.write(items[0], RESULT, 1, SIZE)
    folder.fail(items[1], "read", "damaged")
    again = open_folder({"semsam": "2"}, resume=False)
    assert not again.is_finished(items[0])
    assert json.loads((again.folder / "manifest.json").read_text()) == {"semsam": "2"}
    assert again.close().failed == 0


def test_results_without_a_manifest_are_not_mixed_with_others(open_folder, items):
    folder = open_folder()
    folder.write(items[0], RESULT, 1, SIZE)
    (folder.folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"no 'manifest\.json'"):
        open_folder()


def test_numbers_of_numpy_are_written_and_other_objects_refused(open_folder, items):
    folder = open_folder()
    folder.write(items[0], {"annotations": [], "x": np.float32(0.5), "y": np.arange(2)}, 0, SIZE)
    assert json.loads(folder.result_path("photo_0").read_text())["y"] == [0, 1]
    with pytest.raises(TypeError, match="a result holds a set"):
        folder.write(items[1], {"annotations": [], "x": {1}}, 0, SIZE)
    assert not folder.result_path("photo_1").exists()


def test_a_second_run_in_the_same_folder_is_kept_out_until_the_first_is_done(tmp_path):
    with sole_run(tmp_path / "out"):
        with (
            pytest.raises(RuntimeError, match="another run is writing to"),
            sole_run(tmp_path / "out"),
        ):
            pass
        with sole_run(tmp_path / "elsewhere"):
            pass
    with sole_run(tmp_path / "out"):
        pass
    assert list((tmp_path / "out").iterdir()) == []
