import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semsam.data import DatasetCatalog, MetadataCatalog
from semsam.data.records import BadRecordError, decode_labels

CAMVID_ROOT = Path(os.environ.get("SEMSAM_DATA", "../shared/data")) / "camvid"

LAYOUTS = {
    "camvid://{root}?split=val": ("val/a.jpg", "valannot/a.png", "a"),
    "ade20k://{root}": ("images/validation/a.jpg", "annotations/validation/a.png", "a"),
    "cityscapes://{root}": (
        "leftImg8bit/val/ulm/ulm_1_leftImg8bit.png",
        "gtFine/val/ulm/ulm_1_gtFine_labelTrainIds.png",
        "ulm/ulm_1_leftImg8bit",
    ),
    "foggy_driving://{root}": (
        "leftImg8bit/test/public/b_leftImg8bit.png",
        "gtFine/test/public/b_gtFine_labelTrainIds.png",
        "public/b_leftImg8bit",
    ),
}


def write(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((2, 3), dtype=np.uint8)).save(root / name)


@pytest.mark.parametrize("url", LAYOUTS)
def test_a_photo_is_found_with_its_labels(tmp_path, url):
    photo, truth, name = LAYOUTS[url]
    write(tmp_path, photo, truth)
    (record,) = DatasetCatalog.get(url.format(root=tmp_path))
    assert record["image_id"] == name
    assert record["file_name"] == str(tmp_path / photo)
    assert record["sem_seg_file_name"] == str(tmp_path / truth)


@pytest.mark.parametrize("url", LAYOUTS)
def test_a_photo_without_labels_is_an_error_that_names_both(tmp_path, url):
    photo, truth, _ = LAYOUTS[url]
    write(tmp_path, photo)
    with pytest.raises(FileNotFoundError, match=f"{Path(photo).name}.*{Path(truth).name}"):
        DatasetCatalog.get(url.format(root=tmp_path))


def test_a_folder_without_photos_and_an_unknown_split_are_errors(tmp_path):
    (tmp_path / "val").mkdir()
    with pytest.raises(FileNotFoundError, match="no photo"):
        DatasetCatalog.get(f"camvid://{tmp_path}?split=val")
    with pytest.raises(ValueError, match="split"):
        DatasetCatalog.get(f"camvid://{tmp_path}?split=valid")


def test_metadata_say_what_classes_there_are_and_which_label_does_not_count():
    ade, camvid = MetadataCatalog.get("ade20k_val"), MetadataCatalog.get("camvid_test")
    assert (len(ade.stuff_classes), ade.ignore_label) == (150, 255)
    assert (len(camvid.stuff_classes), camvid.ignore_label) == (11, 11)
    assert camvid.evaluator_type == "SemSegEvaluator"


@pytest.mark.skipif(not CAMVID_ROOT.is_dir(), reason=f"no CamVid in {CAMVID_ROOT}")
def test_camvid_has_its_frames_with_classes_or_nothing():
    numbers = {}
    for split in ("train", "val", "test"):
        records = DatasetCatalog.get(f"camvid://{CAMVID_ROOT}?split={split}")
        numbers[split] = len(records)
        with Image.open(records[0]["sem_seg_file_name"]) as image:
            assert np.asarray(image).max() <= 11
            assert image.size == Image.open(records[0]["file_name"]).size
    assert numbers == {"train": 367, "val": 101, "test": 233}


def test_labels_that_begin_with_1_are_moved_down_and_nothing_becomes_255(tmp_path):
    write(tmp_path, "images/validation/a.jpg", "annotations/validation/a.png")
    labels = np.array([[0, 1, 150]], dtype=np.uint8)
    Image.fromarray(labels).save(tmp_path / "annotations/validation/a.png")
    (record,) = DatasetCatalog.get(f"ade20k://{tmp_path}")
    assert decode_labels(record).tolist() == [[255, 0, 149]]


def test_coloured_labels_are_an_error_that_names_the_file(tmp_path):
    Image.fromarray(np.zeros((2, 2, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(BadRecordError, match=r"a\.png: labels have one channel, not 3"):
        decode_labels({"sem_seg_file_name": str(tmp_path / "a.png")})
