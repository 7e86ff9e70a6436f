import numpy as np
import pytest
from PIL import Image

from semsam.config import get_cfg
from semsam.data.mappers import PhotoMapper
from semsam.data.records import BadRecordError


@pytest.fixture
def record(tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "1.png")
    polygon = [[5, 5, 30, 5, 30, 30, 5, 30]]
    return {
        "file_name": str(tmp_path / "1.png"),
        "image_id": 1,
        "annotations": [{"segmentation": polygon, "category_id": 7, "iscrowd": 0}],
    }


def mapper(is_train):
    cfg = get_cfg()
    cfg.INPUT.IMAGE_SIZE = 64
    cfg.INPUT.MIN_SIZE_TEST = 20
    return PhotoMapper(cfg, is_train)


def test_in_evaluation_the_photo_is_resized_and_nothing_else_is_read(record):
    found = mapper(False)({**record, "annotations": []})
    assert found["image"].shape == (3, 20, 30)
    assert (found["height"], found["width"]) == (40, 60)
    assert found["annotations"] == []
    assert "prompts" not in found


def test_in_training_it_is_the_promptable_mapper(record):
    found = mapper(True)({**record, "rng": np.random.default_rng(0)})
    assert found["image"].shape == (3, 64, 64)
    assert set(found["instances"].gt_classes.tolist()) == {7}
    with pytest.raises(BadRecordError):
        mapper(True)({**record, "annotations": [], "rng": np.random.default_rng(0)})
