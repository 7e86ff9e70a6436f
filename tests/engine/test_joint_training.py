"""Masks without names, segments, parts and boxes with names train one Semantic-SAM, by files."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from semsam.config import CfgNode
from semsam.data import MetadataCatalog, build_train_loader
from semsam.engine import create_ddp_model, launch
from semsam.modeling import build_model
from semsam.modeling.text.classifier import Classifier
from semsam.utils import comm
from semsam.utils.file_io import write_json
from tests.data.joint_files import (
    image_row,
    rectangle,
    write_ade20k,
    write_objects365,
    write_paco,
    write_photo,
)
from tests.tiny import tiny_cfg

KINDS = ("masks", "segments", "parts", "boxes")


def write_sa1b(folder, number=2):
    for i in range(number):
        write_photo(folder / f"sa_{i}.jpg", 20 + i)
        codes = [rectangle(4, 4, 30, 30), rectangle(8, 8, 10, 10), rectangle(40, 20, 20, 20)]
        image = image_row(i, f"sa_{i}.jpg")
        annotations = [{"segmentation": code} for code in codes]
        write_json(folder / f"sa_{i}.json", {"image": image, "annotations": annotations})


def write_data(root: Path) -> dict[str, str]:
    """A data set of each kind, and where it lies."""
    write_sa1b(root / "sa1b")
    write_ade20k(root / "ade")
    write_paco(root / "paco", root / "coco")
    write_objects365(root / "o365")
    return {
        "masks": f"sa1b_folder://{root}/sa1b",
        "segments": f"ade20k_panoptic://{root}/ade?split=train",
        "parts": f"paco://{root}/paco?split=train",
        "boxes": f"objects365_boxes://{root}/o365?split=train",
    }


def joint_cfg(root: Path, names: dict[str, str], kinds=KINDS) -> CfgNode:
    cfg = tiny_cfg(NUM_QUERIES=7)
    cfg.MODEL.REGION_HEADS.NAMES = ["TextClassHead"]
    node = cfg.MODEL.TEXT_CLASS
    node.EMBED_DIM, node.NUM_LAYERS, node.PARTS = 16, 1, True
    node.SEMANTIC_TOKENS = node.HYPERNETWORKS = node.PREDICT_COSINE = False
    generator = torch.Generator().manual_seed(0)
    vocabularies = []
    for kind in KINDS[1:]:
        metadata = MetadataCatalog.get(names[kind])
        classes = tuple(metadata.thing_classes)
        weights = F.normalize(torch.randn(len(classes), 1, 16, generator=generator), dim=-1)
        file = root / f"{kind}.safetensors"
        Classifier(classes, weights, "letters").save(file)
        vocabularies.append(f"{metadata.vocabulary}:{file}")
    cfg.MODEL.NAMING.VOCABULARIES = vocabularies
    cfg.INPUT.IMAGE_SIZE, cfg.INPUT.NUM_PROMPTS = 128, 4
    cfg.DATASETS.TRAIN = tuple(names[kind] for kind in kinds)
    cfg.DATASETS.TRAIN_SHARES = (1,) * len(kinds)
    cfg.DATALOADER.NUM_WORKERS, cfg.SOLVER.IMS_PER_BATCH, cfg.SEED = 0, len(kinds), 0
    return cfg


def step(root, kinds, seed=0):
    """Losses of a batch with one image of each kind, and the model after the step backward."""
    cfg = joint_cfg(root, write_data(root), kinds)
    batch = next(iter(build_train_loader(cfg)))
    torch.manual_seed(seed)
    model = build_model(cfg).train()
    losses = model(batch)
    total = sum(losses.values())
    assert torch.isfinite(total)
    total.backward()
    return {name: loss.item() for name, loss in losses.items()}, model


def learns(model, name):
    gradient = model.get_parameter(name).grad
    assert gradient is not None, f"{name} is not connected"
    assert torch.isfinite(gradient).all()
    return bool(gradient.any())


HEADS = {
    "mask": "decoder.mask_head.layers.2.weight",
    "score": "decoder.score_head.layers.2.weight",
    "box": "decoder.box_head.layers.2.weight",
    "whole": "region_heads.TextClassHead.projections.whole.weight",
    "part": "region_heads.TextClassHead.projections.part.weight",
    "nothing": "naming.no_object",
    "queries": "decoder.query_embed.weight",
}


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (("masks",), {"mask", "score", "box"}),
        (("segments",), {"mask", "score", "box", "whole", "nothing", "queries"}),
        (("parts",), {"mask", "score", "box", "whole", "part"}),
        (("boxes",), {"box", "whole", "nothing", "queries"}),
        (KINDS, set(HEADS)),
    ],
)
def test_each_kind_of_data_trains_what_it_knows(tmp_path, kinds, expected):
    _, model = step(tmp_path, kinds)
    assert {head for head, name in HEADS.items() if learns(model, name)} == expected


def test_all_kinds_have_the_same_losses_and_a_batch_of_boxes_none_of_masks(tmp_path):
    mixed, _ = step(tmp_path, KINDS)
    boxes, _ = step(tmp_path, ("boxes",))
    assert set(mixed) == set(boxes)
    assert all(value > 0 for value in mixed.values())
    of_masks = {name for name, value in boxes.items() if value == 0}
    stems = ("loss_mask_bce", "loss_mask_dice", "loss_iou", "loss_contrastive_part")
    assert of_masks == {name for name in mixed if name.startswith(stems)}


def test_boxes_beside_masks_leave_the_losses_of_masks_as_they_are(tmp_path):
    cfg = joint_cfg(tmp_path, write_data(tmp_path), ("masks", "boxes"))
    batch = next(iter(build_train_loader(cfg)))
    masks = [record for record in batch if record["instances"].has("gt_masks")]
    cfg.MODEL.CRITERION.NUM_POINTS = 20_000
    torch.manual_seed(0)
    model = build_model(cfg).train()
    alone, together = model(masks), model(batch)
    for name in ("loss_mask_bce", "loss_mask_dice", "loss_iou"):
        # Points are drawn anew.
        torch.testing.assert_close(together[name], alone[name], rtol=0.02, atol=0)
    assert together["loss_giou"] != alone["loss_giou"]


def test_a_few_steps_teach_boxes_and_their_names(tmp_path):
    cfg = joint_cfg(tmp_path, write_data(tmp_path), ("boxes",))
    cfg.INPUT.MIN_SCALE = cfg.INPUT.MAX_SCALE = 1.0
    cfg.INPUT.FLIP_PROB = 0.0
    cfg.SOLVER.IMS_PER_BATCH = 2
    torch.manual_seed(0)
    model = build_model(cfg).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    history = []
    for _, batch in zip(range(25), build_train_loader(cfg), strict=False):
        losses = model(batch)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append({name: loss.item() for name, loss in losses.items()})
    for name in ("loss_box", "loss_contrastive", "loss_class_image"):
        before, after = (sum(row[name] for row in rows) for rows in (history[:5], history[-5:]))
        assert after < 0.85 * before, name


def two_ranks(root: str) -> None:
    """Rank 0 has masks without names, rank 1 boxes with names; then the other way round."""
    names = write_data(Path(root) / str(comm.get_rank()))
    batches = []
    for kind in ("masks", "boxes"):
        cfg = joint_cfg(Path(root) / str(comm.get_rank()), names, (kind,))
        cfg.SOLVER.IMS_PER_BATCH = comm.get_world_size()
        batches.append(next(iter(build_train_loader(cfg))))
    torch.manual_seed(0)
    model = create_ddp_model(build_model(cfg).train())
    for turn in range(2):
        model.zero_grad()
        losses = model(batches[(comm.get_rank() + turn) % 2])
        sum(losses.values()).backward()
    gradients = {name: p.grad for name, p in model.module.named_parameters()}
    torch.save(gradients, Path(root) / f"{comm.get_rank()}.pt")


def test_two_ranks_of_which_one_has_boxes_alone_take_a_step_together(tmp_path):
    launch(two_ranks, 2, "cpu", (str(tmp_path),))
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for name, gradient in first.items():
        assert gradient is not None, f"{name} took no part"
        assert torch.isfinite(gradient).all(), name
        torch.testing.assert_close(gradient, second[name])
    for name in HEADS.values():
        assert first[name].any() or "part" in name, name
