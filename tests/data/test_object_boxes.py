"""Objects that have a class and a box, but no mask (Objects365)."""

import logging

import numpy as np
import pytest

from semsam.config import get_cfg
from semsam.data import DatasetCatalog, MetadataCatalog
from semsam.data.mappers import PhotoMapper, PromptableMapper
from semsam.data.records import BadRecordError
from semsam.data.transforms import LargeScaleJitter
from tests.data.joint_files import SIZE, write_objects365


def cfg(scale=(1.0, 1.0), flip=0.0):
    cfg = get_cfg()
    cfg.INPUT.IMAGE_SIZE, cfg.INPUT.NUM_PROMPTS, cfg.INPUT.MIN_SIZE_TEST = 64, 5, 24
    cfg.INPUT.MIN_SCALE, cfg.INPUT.MAX_SCALE = scale
    cfg.INPUT.FLIP_PROB, cfg.INPUT.PROMPT_NOISE = flip, 0.0
    return cfg


def sample(tmp_path, config, seed=0):
    write_objects365(tmp_path)
    record = DatasetCatalog.get(f"objects365_boxes://{tmp_path}?split=train")[0]
    return PhotoMapper(config, True)({**record, "rng": np.random.default_rng(seed)})


def test_classes_are_numbered_by_rising_id_and_evaluated_by_boxes(tmp_path, monkeypatch):
    write_objects365(tmp_path / "objects365", "val")
    monkeypatch.setenv("SEMSAM_DATASETS", str(tmp_path))
    metadata = MetadataCatalog.get("objects365_val")
    assert (metadata.mapper, metadata.vocabulary) == ("PhotoMapper", "objects365")
    assert metadata.thing_classes == ["Person", "Chair"]
    assert metadata.evaluator_type == "COCOEvaluator"
    regions = DatasetCatalog.get("objects365_val")[0]["regions"]
    assert [(r["category_id"], r["phrases"]) for r in regions] == [(0, ["Person"]), (1, ["Chair"])]


def test_prompts_are_the_boxes_and_there_are_no_masks(tmp_path):
    found = sample(tmp_path, cfg())
    instances = found["instances"]
    assert not instances.has("gt_masks")
    boxes = instances.gt_boxes.tensor
    assert boxes.tolist() == [[3.5, 4.0, 23.75, 34.0], [30.0, 10.0, 55.5, 30.0]]
    assert instances.gt_classes.tolist() == [0, 1]
    prompts, targets = found["prompts"], found["targets"]
    assert prompts.num_prompts == 5
    assert prompts.has_box.all()
    assert (prompts.boxes[0] == boxes[targets.seeds]).all()
    assert targets.levels[:, 0].tolist() == targets.seeds.tolist()
    assert set(targets.seeds.tolist()) == {0, 1}


def test_boxes_as_prompts_have_noise_and_those_to_learn_have_none(tmp_path):
    config = cfg()
    config.INPUT.PROMPT_NOISE = 0.4
    found = sample(tmp_path, config)
    truth = found["instances"].gt_boxes.tensor[found["targets"].seeds]
    moved = (found["prompts"].boxes[0] - truth).abs()
    assert (moved > 0).all()
    assert (moved.amax(dim=1) <= 0.4 * (truth[:, 2:] - truth[:, :2]).amax(dim=1)).all()


def test_a_crop_that_loses_every_box_is_drawn_again(tmp_path):
    jitter = LargeScaleJitter(64, 6.0, 6.0, 0.0)
    lost = 0
    for seed in range(8):
        found = sample(tmp_path, cfg(scale=(6.0, 6.0)), seed)
        assert len(found["instances"]) > 0
        top, left = jitter(SIZE, np.random.default_rng(seed)).offset
        lost += left + 64 < 3.5 * 6 or top > 34 * 6 or left > 55.5 * 6 or top + 64 < 4 * 6
    assert lost > 0


def test_in_evaluation_the_photo_alone_is_given(tmp_path):
    write_objects365(tmp_path)
    record = DatasetCatalog.get(f"objects365_boxes://{tmp_path}?split=train")[0]
    found = PhotoMapper(cfg(), False)(record)
    assert found["image"].shape == (3, 24, 32)
    with pytest.raises(BadRecordError, match=r"patch8/.*\.jpg: there are no masks to click on"):
        PromptableMapper(cfg(), False)(record)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bbox": [70, 0, 9, 9]}, r"has no area inside the image of (48, 64)"),
        ({"bbox": [0, 0, -3, 9]}, r"has no area inside the image of (48, 64)"),
        ({"category_id": 999}, "ValueError: there is no category 999"),
        ({"image_id": 7}, "ValueError: image 7 is not listed"),
    ],
)
def test_an_object_that_cannot_be_used_is_logged_with_file_and_row(
    tmp_path, caplog, change, reason
):
    bad = {"id": 9, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], **change}
    write_objects365(tmp_path, number=1, more=[bad])
    with caplog.at_level(logging.WARNING):
        records = DatasetCatalog.get(f"objects365_boxes://{tmp_path}?split=train")
    assert (len(records[0]["regions"]), records.num_bad) == (2, 1)
    assert "zhiyuan_objv2_train.json': 1 of 3 regions left out, first row 2: " in caplog.text
    assert reason in caplog.text
