"""The automatic mask generator: end to end, and its filters alone on stored logits."""

import numpy as np
import pytest
import torch
from torch import nn

from semsam.inference import AutomaticMaskGenerator
from semsam.modeling.decoder.mask_dino import level_order
from semsam.structures import ImageList, PhotoFormat, PromptOutput

from .golden import SEMANTIC_SAM, cases, load_original, semsam_cfg

#: Pixels of a mask that may differ: logits within rounding of the threshold.
FLIPS = 2


def generator(model, meta, size, **kwargs):
    # The original has no way to switch a filter off, and no distinction between crops and levels.
    return AutomaticMaskGenerator(
        model,
        points_per_side=meta["points_per_side"],
        points_per_batch=meta["points_per_batch"],
        pred_iou_thresh=meta["pred_iou_thresh"],
        stability_score_thresh=meta["stability_score_thresh"],
        min_mask_region_area=meta["min_mask_region_area"],
        levels=meta["level_user"],
        min_size=min(size),
        **kwargs,
    )


def assert_same_records(records, fixture, masks, size):
    assert len(records) == len(masks)
    scale = np.array([size[1], size[0]])
    for i, record in enumerate(records):
        flips = np.count_nonzero(record["segmentation"] != masks[i])
        assert flips <= FLIPS
        if not flips:
            assert record["area"] == fixture["out.area"][i]
            assert record["bbox"] == fixture["out.bbox_xywh"][i].tolist()
        assert record["predicted_iou"] == pytest.approx(
            fixture["out.predicted_iou"][i].item(), abs=1e-4
        )
        assert record["stability_score"] == pytest.approx(
            fixture["out.stability_score"][i].item(), abs=1e-3
        )
        point = fixture["out.point_coords"][i, :2].numpy() * scale
        np.testing.assert_allclose(record["point_coords"][0], point, atol=1e-3)
        assert record["crop_box"] == [0, 0, size[1], size[0]]


@pytest.mark.parametrize(("fixture", "what"), cases(SEMANTIC_SAM, "auto_mask", "records"))
def test_everything_in_an_image_equals_the_original(fixture, what):
    meta = fixture.meta
    cfg = semsam_cfg(meta["config"])
    # The original's clicks saw the other clicks of their batch.
    cfg.MODEL.DECODER.CROSS_PROMPT_ATTENTION = True
    model = load_original(fixture, cfg)
    image = fixture["in.image"].permute(1, 2, 0).numpy()
    size = image.shape[:2]
    generate = generator(
        model,
        meta,
        size,
        box_nms_thresh=meta["box_nms_thresh"],
        crop_nms_thresh=meta["crop_nms_thresh"],
    ).generate
    packed = fixture["out.masks_packed"].numpy()
    masks = np.unpackbits(packed, axis=1)[:, : size[0] * size[1]].reshape(-1, *size)
    assert_same_records(generate(image), fixture, masks.astype(bool), size)


class StoredLogits(nn.Module):
    """Answers the clicks of a grid from a table, click after click."""

    def __init__(self, fixture):
        super().__init__()
        self.device = torch.device("cpu")
        self.photo_format = PhotoFormat()
        self.logits = fixture["in.logits_fp16"].float()
        self.scores = fixture["in.ious"]
        self.grid = fixture["in.point_grid"].float()

    def preprocess(self, records):
        return ImageList.from_tensors([x["image"].float() for x in records])

    def encode_image(self, images):
        return {"size": images.padded_size}

    def decode(self, features, prompts):
        height, width = features["size"]
        points = prompts.points[0, :, 0] / torch.tensor([width, height])
        rows = torch.cdist(points, self.grid).argmin(dim=1)
        return PromptOutput(
            mask_logits=self.logits[rows][None],
            scores=self.scores[rows][None],
            boxes=None,
            tokens=torch.zeros(1, len(rows), self.scores.shape[1], 1),
            valid=prompts.valid,
            padded_size=features["size"],
            levels=level_order(self.scores.shape[1]),
        )


@pytest.mark.parametrize(("fixture", "what"), cases(SEMANTIC_SAM, "auto_mask_stub", "records"))
def test_filters_keep_and_clean_the_masks_that_the_original_keeps(fixture, what):
    meta = fixture.meta
    size = (meta["H"], meta["W"])
    records = generator(StoredLogits(fixture), meta, size).generate(
        np.zeros((*size, 3), dtype=np.uint8)
    )
    assert_same_records(records, fixture, fixture["out.masks"].bool().numpy(), size)


@pytest.mark.parametrize(("fixture", "what"), cases(SEMANTIC_SAM, "auto_mask_stub", "levels"))
def test_levels_are_the_tokens_of_the_original(fixture, what):
    order = level_order(fixture["in.ious"].shape[1])
    assert [order[level - 1] for level in fixture.meta["level_user"]] == fixture.meta[
        "level_internal"
    ]
