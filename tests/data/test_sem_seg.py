import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semsam.data import DatasetCatalog, MetadataCatalog

CAMVID_ROOT = Path(os.environ.get("SEMSAM_DATA", "../shared/data")) / "camvid"

LAYOUTS = {
    "camvid://{root}?split=val": ("val/a.jpg", "valannot/a.png", "a"),
    "ade20k://{root}": ("images/validation/a.jpg", "annotations/validation/a.png", "a"),
    "cityscapes://{root}": (
        "leftImg8bit/val/ulm/ulm_1_leftImg8bit.png",
        "gtFine/val/ulm/ulm_1_gtFine_labelTrainIds.png",
        "ulm/ulm_1",
    ),
    "foggy_driving://{root}": (
        "leftImg8bit/test/public/b_leftImg8bit.png",
        "gtFine/test/public/b_gtFine_labelTrainIds.png",
        "public/b",
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
    record = {"image_id": name, "file_name": f"{tmp_path / photo}"}
    assert list(DatasetCatalog.get(url.format(root=tmp_path))) == [
        {**record, "sem_seg_file_name": f"{tmp_path / truth}"}
    ]


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


def test_metadata_say_how_labels_are_read():
    ade, camvid = MetadataCatalog.get("ade20k_val"), MetadataCatalog.get("camvid_test")
    assert (len(ade.stuff_classes), ade.reduce_zero_label, ade.ignore_label) == (150, True, 255)
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
