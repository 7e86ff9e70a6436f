import numpy as np
import pytest
import torch

from semsam.config import get_cfg
from semsam.modeling import build_model
from semsam.structures import Boxes, Instances, Prompts, PromptTargets

pytest.importorskip("detectron2", reason="detectron2 is not installed (it is built from source)")

from detectron2 import structures as d2
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg as get_d2_cfg
from detectron2.engine import DefaultPredictor
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling import build_model as build_d2_model

from semsam.bridge.detectron2 import add_semsam_config, from_detectron2, to_detectron2
from semsam.evaluation.evaluator import inference_on_dataset as semsam_inference_on_dataset
from semsam.evaluation.interactive import InteractiveEvaluator

TINY = [
    *("MODEL.DEVICE", "cpu"),
    *("MODEL.SWIN.EMBED_DIM", 8, "MODEL.SWIN.DEPTHS", "[1, 1, 1, 1]"),
    *("MODEL.SWIN.NUM_HEADS", "[1, 2, 2, 4]", "MODEL.SWIN.WINDOW_SIZE", 4),
    *("MODEL.PIXEL_DECODER.CONV_DIM", 32, "MODEL.PIXEL_DECODER.MASK_DIM", 32),
    *("MODEL.PIXEL_DECODER.NUM_LAYERS", 1, "MODEL.PIXEL_DECODER.DIM_FEEDFORWARD", 32),
    *("MODEL.DECODER.HIDDEN_DIM", 32, "MODEL.DECODER.NUM_LAYERS", 1),
    *("MODEL.DECODER.DIM_FEEDFORWARD", 32),
]


def d2_cfg():
    cfg = get_d2_cfg()
    add_semsam_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "PromptableSegmentor"
    cfg.SEMSAM.OPTS = TINY
    cfg.SEMSAM.POINTS_PER_SIDE = 3
    cfg.SEMSAM.PRED_IOU_THRESH = -100.0
    cfg.SEMSAM.STABILITY_SCORE_THRESH = 0.0
    cfg.INPUT.MIN_SIZE_TEST = 64
    return cfg


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)


def test_the_meta_architectures_are_in_the_registry():
    assert "PromptableSegmentor" in META_ARCH_REGISTRY


def test_the_default_predictor_finds_masks_in_the_frame_of_the_photo(photo):
    torch.manual_seed(0)
    found = DefaultPredictor(d2_cfg())(photo)["instances"]
    assert isinstance(found, d2.Instances)
    assert found.image_size == (48, 80)
    assert len(found) > 0
    assert found.pred_masks.shape == (len(found), 48, 80)
    assert found.pred_masks.dtype == torch.bool
    for mask, box in zip(found.pred_masks, found.pred_boxes, strict=True):
        rows, columns = mask.nonzero(as_tuple=True)
        inside = [columns.min(), rows.min(), columns.max(), rows.max()]
        # Boxes were measured in the model's larger frame: they agree to a pixel of the photo.
        assert (box - torch.tensor(inside)).abs().max() <= 1.5


def test_detectron2_loads_a_checkpoint_of_semsam(tmp_path):
    cfg = d2_cfg()
    semsam_cfg = get_cfg()
    semsam_cfg.merge_from_list(TINY)
    model = build_model(semsam_cfg)
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    bridged = build_d2_model(cfg)
    left = DetectionCheckpointer(bridged).load(str(tmp_path / "model.pth"))
    assert "matching_heuristics" not in left
    for name, value in model.state_dict().items():
        assert torch.equal(bridged.state_dict()[name], value), name


def test_semsams_weights_are_loaded_where_semsams_configuration_names_them(tmp_path):
    semsam_cfg = get_cfg()
    semsam_cfg.merge_from_list(TINY)
    model = build_model(semsam_cfg)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    cfg = d2_cfg()
    cfg.SEMSAM.OPTS = [*TINY, "MODEL.WEIGHTS", str(tmp_path / "model.pth")]
    bridged = build_d2_model(cfg)
    for name, value in model.state_dict().items():
        assert torch.equal(bridged.state_dict()[name], value), name


def records(photo):
    image = torch.from_numpy(photo).permute(2, 0, 1)
    click, box = Prompts.from_points([[9.0, 9.0]]), Prompts.from_boxes([[4.0, 4, 30, 30]])
    return [
        [{"image": image, "prompts": Prompts.cat([click, box]), "height": 24, "width": 40}],
        [{"image": image[:, :40], "prompts": click}],
    ]


def test_inference_on_dataset_gives_the_numbers_that_semsam_gives(photo):
    model = build_d2_model(d2_cfg()).train()
    semsam_cfg = get_cfg()
    semsam_cfg.merge_from_list(TINY)
    same = build_model(semsam_cfg)
    same.load_state_dict(model.state_dict())
    loader = records(photo)
    for number, (record,) in enumerate(loader):
        height, width = record.setdefault("height", 40), record.setdefault("width", 80)
        masks = torch.zeros(1, height, width, dtype=torch.bool)
        masks[:, : height // 2] = True
        seeds = torch.zeros(record["prompts"].num_prompts, dtype=torch.long)
        record["instances"] = Instances((height, width), gt_masks=masks)
        record["targets"] = PromptTargets(seeds, seeds[:, None])
        record["image_id"] = number
    results = inference_on_dataset(model, loader, InteractiveEvaluator())
    assert results["oracle"]["clicks"] == 3
    assert results == semsam_inference_on_dataset(same, loader, InteractiveEvaluator())
    assert model.training


def test_images_that_detectron2_reads_as_bgr_give_the_same_answer(photo):
    rgb = build_d2_model(d2_cfg()).eval()
    cfg = d2_cfg()
    cfg.INPUT.FORMAT = "BGR"
    bgr = build_d2_model(cfg).eval()
    bgr.load_state_dict(rgb.state_dict())
    (record,) = records(photo)[0]
    with torch.no_grad():
        expected = rgb([record])[0]["instances"].mask_logits
        flipped = bgr([{**record, "image": record["image"].flip(0)}])[0]["instances"].mask_logits
    assert torch.equal(expected, flipped)


def test_a_batch_may_mix_images_with_and_without_prompts(photo):
    model = build_d2_model(d2_cfg()).eval()
    (record,) = records(photo)[0]
    with torch.no_grad():
        prompted, automatic = model([record, {"image": record["image"]}])
    assert prompted["instances"].pred_masks.shape == (2, 6, 24, 40)
    assert automatic["instances"].pred_masks.shape[1:] == (48, 80)


def test_instances_convert_to_detectron2_and_back():
    ours = Instances(
        (8, 9),
        gt_boxes=Boxes([[1.0, 2, 3, 4]]),
        gt_masks=torch.ones(1, 8, 9, dtype=torch.bool),
        names=["cup"],
    )
    theirs = to_detectron2(ours)
    assert isinstance(theirs.gt_boxes, d2.Boxes)
    assert isinstance(theirs.gt_masks, d2.BitMasks)
    back = from_detectron2(theirs)
    assert back.image_size == (8, 9)
    assert torch.equal(back.gt_boxes.tensor, ours.gt_boxes.tensor)
    assert torch.equal(back.gt_masks, ours.gt_masks)
    assert back.names == ["cup"]


def test_polygons_arrive_as_bitmaps():
    theirs = d2.Instances((8, 9))
    theirs.gt_masks = d2.PolygonMasks([[np.array([1.0, 1, 5, 1, 5, 4, 1, 4])]])
    masks = from_detectron2(theirs).gt_masks
    assert masks.shape == (1, 8, 9)
    assert masks[0, 2, 3]
    assert not masks[0, 6, 7]


@pytest.mark.parametrize("name", ["build_resnet_backbone", "build_resnet_fpn_backbone"])
def test_a_model_runs_on_a_backbone_of_detectron2(name, photo):
    cfg = get_cfg()
    cfg.merge_from_list([*TINY, "MODEL.BACKBONE.NAME", name])
    cfg.MODEL.DETECTRON2.OPTS = ["MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64]
    model = build_model(cfg).eval()
    (record,) = records(photo)[0]
    with torch.no_grad():
        instances = model([record])[0]["instances"]
        maps = model.backbone(torch.zeros(1, 3, 128, 64))
    assert instances.pred_masks.shape == (2, 6, 24, 40)
    for key, spec in model.backbone.output_shape().items():
        assert maps[key].shape == (1, spec.channels, 128 // spec.stride, 64 // spec.stride), key


def test_a_backbone_trained_on_bgr_gets_bgr():
    cfg = get_cfg()
    cfg.merge_from_list([*TINY, "MODEL.BACKBONE.NAME", "build_resnet_backbone"])
    cfg.MODEL.DETECTRON2.OPTS = ["MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64]
    backbone = build_model(cfg).backbone.eval()
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(backbone(images)["res2"], backbone.net(images.flip(1))["res2"])


def test_a_detectron2_file_configures_the_backbone(tmp_path):
    (tmp_path / "r18.yaml").write_text(
        "MODEL: {RESNETS: {DEPTH: 18, RES2_OUT_CHANNELS: 64, OUT_FEATURES: [res2, res3]}}\n"
    )
    cfg = get_cfg()
    cfg.merge_from_list([*TINY, "MODEL.BACKBONE.NAME", "D2Backbone"])
    cfg.MODEL.DETECTRON2.CONFIG_FILE = str(tmp_path / "r18.yaml")
    assert list(build_model(cfg).backbone.output_shape()) == ["res2", "res3"]
