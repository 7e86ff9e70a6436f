import json
import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from semsam.data import DatasetCatalog, build_test_loader
from semsam.evaluation import build_evaluator, inference_on_dataset
from semsam.evaluation.interactive import (
    GranularityEvaluator,
    InteractiveEvaluator,
    mask_iou,
    summarize,
)
from semsam.modeling import build_model
from semsam.modeling.criterion.matcher import LevelMatcher
from semsam.structures import Boxes, Instances, PromptTargets, masks_to_boxes
from tests.tiny import nested_masks, tiny_cfg

COCO_ROOT = Path(os.environ.get("SEMSAM_DATA", "../shared/data")) / "coco"
POINTS = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0))


def box_mask(x0, y0, x1, y1, size=(20, 20)):
    mask = torch.zeros(size, dtype=torch.bool)
    mask[y0:y1, x0:x1] = True
    return mask


def record_of(gt_masks, seeds=None, levels=None, image_id=1):
    seeds = torch.arange(len(gt_masks)) if seeds is None else torch.tensor(seeds)
    levels = seeds[:, None] if levels is None else torch.tensor(levels)
    return {
        "image_id": image_id,
        "instances": Instances(
            gt_masks.shape[-2:], gt_masks=gt_masks, gt_boxes=Boxes(masks_to_boxes(gt_masks))
        ),
        "targets": PromptTargets(seeds, levels),
    }


def test_iou_of_a_mask_is_overlap_over_union():
    truth = torch.stack([box_mask(0, 0, 10, 10), box_mask(0, 0, 4, 4)])
    masks = torch.stack(
        [
            torch.stack([box_mask(0, 0, 10, 10), box_mask(5, 0, 15, 10), box_mask(10, 10, 20, 20)]),
            torch.stack([box_mask(0, 0, 4, 4), box_mask(0, 0, 8, 4), box_mask(0, 0, 0, 0)]),
        ]
    )
    expected = torch.tensor([[1, 1 / 3, 0], [1, 1 / 2, 0]], dtype=torch.float64)
    torch.testing.assert_close(mask_iou(masks, truth), expected)


def test_iou_of_two_empty_masks_is_zero_and_of_no_prompt_empty():
    assert mask_iou(torch.zeros(1, 1, 4, 4).bool(), torch.zeros(1, 4, 4).bool()).tolist() == [[0]]
    nothing = mask_iou(torch.zeros(0, 6, 4, 4).bool(), torch.zeros(0, 4, 4).bool())
    assert nothing.shape == (0, 6)


def test_masks_in_another_frame_than_the_ground_truth_are_rejected():
    with pytest.raises(ValueError, match="height and width"):
        mask_iou(torch.zeros(1, 6, 8, 8).bool(), torch.zeros(1, 4, 4).bool())


def test_summary_counts_clicks_shares_and_sizes():
    result = summarize(np.array([0.95, 0.82, 0.4, 0.0]), np.array([10.0, 2000, 32**2, 96**2]))
    assert result["1-IoU"] == pytest.approx(54.25)
    assert result["recall"] == pytest.approx(50)
    assert result["1-IoU small"] == pytest.approx(95)
    assert result["1-IoU medium"] == pytest.approx(61)
    assert result["1-IoU large"] == 0
    assert result["recall medium"] == pytest.approx(50)
    assert result["NoC@0.5"] == pytest.approx((1 + 1 + 20 + 20) / 4)
    assert result["NoC@0.9"] == pytest.approx((1 + 20 * 3) / 4)
    assert result["clicks"] == 4


def test_sizes_that_do_not_occur_are_left_out():
    assert [k for k in summarize(np.ones(1), np.ones(1)) if "IoU" in k] == ["1-IoU", "1-IoU small"]


def test_max_follows_the_scores_and_oracle_the_truth():
    gt_masks = torch.stack([box_mask(0, 0, 10, 10), box_mask(0, 0, 20, 20)])
    # The click comes from the second mask alone.
    record = record_of(gt_masks, seeds=[1])
    masks = torch.stack([box_mask(0, 0, 20, 20), box_mask(0, 0, 20, 10)])[None]
    predicted = Instances((20, 20), pred_masks=masks, scores=torch.tensor([[0.2, 0.7]]))
    evaluator = InteractiveEvaluator()
    evaluator.process([record], [{"instances": predicted}])
    results = evaluator.evaluate()
    assert results["max"]["1-IoU"] == pytest.approx(50)
    assert results["oracle"]["1-IoU"] == pytest.approx(100)


def test_average_runs_over_clicks_and_an_image_seen_twice_counts_once():
    evaluator = InteractiveEvaluator()
    whole, half = box_mask(0, 0, 20, 20), box_mask(0, 0, 20, 10)
    for image_id, found in ((1, [whole, whole, whole]), (2, [half]), (2, [half])):
        record = record_of(whole.expand(len(found), -1, -1), image_id=image_id)
        masks = torch.stack(found)[:, None]
        predicted = Instances((20, 20), pred_masks=masks, scores=torch.ones(len(found), 1))
        evaluator.process([record], [{"instances": predicted}])
    assert evaluator.evaluate()["max"]["1-IoU"] == pytest.approx((3 * 100 + 50) / 4)
    assert evaluator.evaluate()["max"]["clicks"] == 4
    evaluator.reset()
    with pytest.raises(RuntimeError, match="nothing"):
        evaluator.evaluate()


def test_size_of_an_object_is_that_in_the_photo():
    # 400 pixels are small, but the photo has ten times as many a side.
    record = record_of(box_mask(0, 0, 20, 20)[None]) | {"original_size": (200, 200)}
    masks = record["instances"].gt_masks[None]
    evaluator = InteractiveEvaluator()
    predicted = Instances((20, 20), pred_masks=masks, scores=torch.ones(1, 1))
    evaluator.process([record], [{"instances": predicted}])
    assert "1-IoU large" in evaluator.evaluate()["max"]
    assert "1-IoU small" not in evaluator.evaluate()["max"]


def nested_prediction(order):
    """A click in two nested masks, answered by three masks; the frame is padded by half."""
    gt_masks = nested_masks(64, 96)
    record = record_of(gt_masks, seeds=[1], levels=[[0, 1, -1]])
    masks = gt_masks[order][None]
    padded = torch.nn.functional.pad(masks, (0, 32, 0, 32)).float()
    boxes = masks_to_boxes(gt_masks)[order][None]
    predicted = Instances(
        (64, 96),
        pred_masks=masks,
        scores=torch.zeros(1, len(order)),
        pred_boxes=boxes,
        mask_logits=torch.nn.functional.avg_pool2d(padded, 4) * 20 - 10,
    )
    return record, {"instances": predicted, "padded_size": (96, 128)}


@pytest.mark.parametrize("order", [[2, 1, 0], [0, 1, 2], [1, 2, 0]])
def test_every_mask_under_the_click_finds_its_answer_whatever_the_order(order):
    evaluator = GranularityEvaluator(LevelMatcher(), POINTS)
    record, output = nested_prediction(order)
    evaluator.process([record], [output])
    result = evaluator.evaluate()["granularity"]
    assert result["1-IoU"] == pytest.approx(100)
    assert result["clicks"] == 2


def test_granularities_are_evaluated_where_the_decoder_predicts_no_boxes():
    evaluator = GranularityEvaluator(LevelMatcher(), POINTS)
    record, output = nested_prediction([2, 1, 0])
    output["instances"].remove("pred_boxes")
    evaluator.process([record], [output])
    assert evaluator.evaluate()["granularity"]["1-IoU"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("dataset", "tasks"),
    [
        ("coco_panoptic://nowhere", ["max", "oracle"]),
        ("sa1b_tsv://nowhere", ["max", "oracle", "granularity"]),
    ],
)
def test_a_dataset_is_measured_by_what_its_metadata_names(dataset, tasks):
    evaluator = build_evaluator(tiny_cfg(), dataset)
    record, output = nested_prediction([2, 1, 0])
    evaluator.process([record], [output])
    assert list(evaluator.evaluate()) == tasks


@pytest.mark.skipif(not COCO_ROOT.is_dir(), reason=f"no COCO in {COCO_ROOT}; see SEMSAM_DATA")
def test_real_photos_are_evaluated_from_file_to_table():
    cfg = tiny_cfg()
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.INPUT.MIN_SIZE_TEST = 160
    name = f"coco_panoptic://{COCO_ROOT}?split=val2017"
    batches = list(islice(build_test_loader(cfg, name), 3))
    model = build_model(cfg)
    evaluators = [build_evaluator(cfg, name), GranularityEvaluator(cfg, name)]
    results = inference_on_dataset(model, batches, evaluators)
    segments = [s for r in islice(DatasetCatalog.get(name), 3) for s in r["segments_info"]]
    assert results["max"]["clicks"] == sum(not s["iscrowd"] for s in segments)
    assert 0 <= results["max"]["1-IoU"] <= results["oracle"]["1-IoU"] <= 100
    assert json.loads(json.dumps(results)) == results
