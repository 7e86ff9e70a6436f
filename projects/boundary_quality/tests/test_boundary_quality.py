import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle_tools

from semsam.modeling import build_model
from semsam.structures import Instances, PromptOutput, PromptTargets
from tests.tiny import tiny_cfg, training_record

PROJECT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("bq", PROJECT / "boundary_quality.py")
bq = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bq)


def square(start: int, end: int, size: int = 32) -> torch.Tensor:
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[start:end, start:end] = True
    return mask


def test_the_outline_of_a_square_is_its_frame():
    # The band of a 32x32 frame is one pixel wide.
    expected = square(8, 20) & ~square(9, 19)
    assert torch.equal(bq.outline(square(8, 20)[None])[0], expected)


def test_a_mask_that_fills_the_frame_has_its_outline_at_the_edge():
    expected = ~square(1, 31)
    assert torch.equal(bq.outline(square(0, 32)[None])[0], expected)


def test_each_mask_is_compared_with_the_answer_that_it_overlaps_most():
    truth = torch.stack([square(4, 28), square(10, 16), square(0, 3)])
    masks = torch.stack([square(4, 28), square(10, 16)])[None]
    quality = bq.boundary_quality(masks, truth, torch.tensor([[0, 1]]))
    assert quality.tolist() == [[1, 1]]


def test_a_loose_outline_costs_more_than_a_part_of_the_area():
    masks, truth = square(3, 29)[None, None], square(4, 28)[None]
    assert bq.pairwise_iou(masks[0], truth).item() > 0.85
    assert bq.boundary_quality(masks, truth, torch.tensor([[0]])).item() == 0


def test_an_answer_of_another_prompt_does_not_count():
    truth = torch.stack([square(4, 28), square(10, 16)])
    quality = bq.boundary_quality(square(4, 28)[None, None], truth, torch.tensor([[1, -1]]))
    assert quality.item() < 0.1


def test_the_head_is_given_masks_where_it_learns_alone():
    cfg = tiny_cfg()
    bq.add_config(cfg)
    cfg.MODEL.REGION_HEADS.NAMES, cfg.MODEL.CRITERION.NAME = ["BoundaryQualityHead"], ""
    losses = build_model(cfg).train()([training_record(64, 96)])
    assert set(losses) == {"loss_boundary_quality"}
    assert torch.isfinite(losses["loss_boundary_quality"])


def test_ground_truth_is_brought_to_the_decoders_stride():
    masks = torch.zeros(1, 40, 56, dtype=torch.bool)
    masks[0, :40, :8] = True
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[:10, :2] = True
    assert torch.equal(bq.at_stride(masks, (64, 64), (16, 16))[0], expected)


def make_output(tokens: torch.Tensor) -> PromptOutput:
    masks = torch.stack([square(4, 28), square(2, 14)]) * 20.0 - 10
    return PromptOutput(
        mask_logits=masks[None, None],
        scores=torch.zeros(1, 1, 2),
        boxes=None,
        tokens=tokens,
        valid=torch.ones(1, 1, dtype=torch.bool),
        padded_size=(128, 128),
    )


def test_the_head_learns_which_mask_follows_the_outline():
    torch.manual_seed(0)
    head = bq.BoundaryQualityHead(token_dim=16)
    output = make_output(torch.randn(1, 1, 2, 16))
    truth = square(4, 28).repeat_interleave(4, 0).repeat_interleave(4, 1)
    instances = [Instances((128, 128), gt_masks=truth[None])]
    targets = [PromptTargets(torch.tensor([0]), torch.tensor([[0]]))]
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    for _ in range(60):
        loss = head.losses(output, instances, targets)["loss_boundary_quality"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    good, bad = head.inference(output)["boundary_scores"].flatten().tolist()
    assert good > 0.9
    assert bad < 0.2


def test_images_without_answers_give_a_zero_loss_that_has_a_gradient():
    head = bq.BoundaryQualityHead(token_dim=16)
    none = Instances((128, 128), gt_masks=torch.zeros(0, 128, 128, dtype=torch.bool))
    targets = PromptTargets(torch.zeros(0).long(), torch.zeros(0, 2).long())
    output = make_output(torch.randn(1, 1, 2, 16))
    loss = head.losses(output, [none], [targets])["loss_boundary_quality"]
    loss.backward()
    assert loss.item() == 0


@pytest.fixture
def photos(tmp_path):
    """Two images in SA-1B's layout: a square with a part in it."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(2):
        whole, part = square(8 + i, 56, 64).numpy(), square(24, 40 + i, 64).numpy()
        pixels = 60 + 80 * whole.astype(np.uint8) + 80 * part.astype(np.uint8)
        Image.fromarray(np.stack([pixels] * 3, axis=-1)).save(folder / f"{i}.jpg")
        annotations = []
        for mask in (whole, part):
            rle = rle_tools.encode(np.asfortranarray(mask.astype(np.uint8)))
            rle["counts"] = rle["counts"].decode()
            annotations.append({"segmentation": rle})
        (folder / f"{i}.json").write_text(json.dumps({"annotations": annotations}))
    return folder


SMALL = """
_BASE_: {base}
MODEL:
  DEVICE: cpu
  SWIN: {{EMBED_DIM: 8, DEPTHS: [1, 1, 1, 1], NUM_HEADS: [1, 2, 2, 4], WINDOW_SIZE: 4}}
  PIXEL_DECODER: {{CONV_DIM: 32, MASK_DIM: 32, NUM_LAYERS: 1, DIM_FEEDFORWARD: 32}}
  DECODER: {{HIDDEN_DIM: 32, NUM_LAYERS: 2, DIM_FEEDFORWARD: 32}}
  CRITERION: {{NUM_POINTS: 64}}
INPUT: {{IMAGE_SIZE: 64, NUM_PROMPTS: 4}}
DATASETS: {{TRAIN: ["sa1b_folder://{photos}"], TEST: []}}
DATALOADER: {{NUM_WORKERS: 0}}
SOLVER: {{AMP: {{ENABLED: False}}, IMS_PER_BATCH: 2, LOG_PERIOD: 1}}
"""


def test_the_head_is_trained_by_the_tool_with_no_edit_in_semsam(photos, tmp_path):
    config, output = tmp_path / "small.yaml", tmp_path / "output"
    config.write_text(SMALL.format(base=PROJECT / "boundary_quality_swin_t.yaml", photos=photos))
    command = [sys.executable, "tools/train_net.py", "--config-file", str(config)]
    done = subprocess.run(
        [*command, "SOLVER.MAX_ITER=3", f"OUTPUT_DIR={output}"],
        cwd=PROJECT.parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    losses = [row["loss_boundary_quality"] for row in rows if "loss_boundary_quality" in row]
    assert len(losses) == 3
    assert np.isfinite(losses).all()
    # The run's own configuration finds the plug-in from wherever it is read.
    assert str(PROJECT / "boundary_quality.py") in (output / "config.yaml").read_text()
