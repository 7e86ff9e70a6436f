"""semsam's models inside detectron2, and its records in detectron2's classes and back.

Importing this module where detectron2 is installed puts every meta-architecture of semsam into
detectron2's ``META_ARCH_REGISTRY``, so that its ``DefaultPredictor``, ``inference_on_dataset`` and
trainers build and drive them::

    cfg = detectron2.config.get_cfg()
    add_semsam_config(cfg)
    cfg.SEMSAM.CONFIG_FILE = "configs/semantic_sam/semantic_sam_swin_t_sa1b.yaml"
    cfg.MODEL.META_ARCHITECTURE = "PromptableSegmentor"
    instances = DefaultPredictor(cfg)(bgr_image)["instances"]

The other direction, detectron2's backbones in semsam, is ``MODEL.BACKBONE.NAME`` with
``semsam/modeling/backbone/d2_backbone.py``.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semsam.checkpoint import load_weights
from semsam.config import CfgNode, get_cfg, load_cfg
from semsam.inference import AutomaticMaskGenerator
from semsam.modeling.build import META_ARCH, import_all_parts
from semsam.structures import Boxes, Instances

if TYPE_CHECKING:
    from detectron2.structures import Instances as D2Instances


def add_semsam_config(cfg: Any) -> None:
    """Add ``SEMSAM`` to a detectron2 configuration, and ask detectron2 for RGB images.

    Keys: ``CONFIG_FILE``, a semsam yaml ("" for the defaults); ``OPTS``, overrides of it; and, for
    images that come without prompts, three arguments of ``AutomaticMaskGenerator``.
    """
    cfg.SEMSAM = type(cfg)({"CONFIG_FILE": "", "OPTS": []})
    cfg.SEMSAM.POINTS_PER_SIDE = 32
    cfg.SEMSAM.PRED_IOU_THRESH = 0.88
    cfg.SEMSAM.STABILITY_SCORE_THRESH = 0.92
    cfg.INPUT.FORMAT = "RGB"


def register() -> None:
    """Put every meta-architecture that semsam knows by now into detectron2's registry."""
    from detectron2.modeling import META_ARCH_REGISTRY

    import_all_parts()
    for name in META_ARCH:
        if name not in META_ARCH_REGISTRY:
            # A subclass, not a wrapper: the keys of its state dict stay those of the model, so
            # detectron2's checkpointer reads and writes semsam's files.
            model_class: Any = META_ARCH.get(name)
            META_ARCH_REGISTRY.register(type(name, (Detectron2Face, model_class), {}))


def to_detectron2(instances: Instances) -> D2Instances:
    """The same instances in detectron2's class, tensors shared.

    ``Boxes`` become detectron2's, ``gt_masks`` its ``BitMasks``; other fields stay as they are.
    """
    from detectron2 import structures

    converted = structures.Instances(instances.image_size)
    for name, value in instances.get_fields().items():
        if isinstance(value, Boxes):
            value = structures.Boxes(value.tensor)
        elif name == "gt_masks":
            value = structures.BitMasks(value)
        converted.set(name, value)
    return converted


def from_detectron2(instances: D2Instances) -> Instances:
    """The same instances in semsam's class, tensors shared; the inverse of ``to_detectron2``.

    Polygons are drawn into bitmaps; other structures (keypoints, rotated boxes) stay as they are.
    """
    from detectron2 import structures

    converted = Instances(instances.image_size)
    for name, value in instances.get_fields().items():
        if isinstance(value, structures.Boxes):
            value = Boxes(value.tensor)
        elif isinstance(value, structures.PolygonMasks):
            value = structures.BitMasks.from_polygon_masks(value, *instances.image_size).tensor
        elif isinstance(value, structures.BitMasks):
            value = value.tensor
        converted.set(name, value)
    return converted


class Detectron2Face(nn.Module):
    """What a meta-architecture needs to be driven by detectron2; the left base of a subclass.

    Records have detectron2's ``image`` (3, h, w) in the order that ``INPUT.FORMAT`` says, and
    predictions are detectron2's ``Instances``. A record with ``prompts`` is answered as in semsam.
    One without, as ``DefaultPredictor`` makes it, is answered with automatic masks: ``pred_masks``
    (M, height, width), ``pred_boxes``, ``scores``, ``pred_classes`` (all 0), ``levels``.
    """

    def __init__(self, cfg: Any) -> None:
        """Build from a detectron2 configuration with ``add_semsam_config``'s keys."""
        semsam_cfg = _semsam_cfg(cfg.SEMSAM)
        super().__init__(semsam_cfg)
        self.bgr = cfg.INPUT.FORMAT == "BGR"
        self.automatic = {
            "points_per_side": cfg.SEMSAM.POINTS_PER_SIDE,
            "pred_iou_thresh": cfg.SEMSAM.PRED_IOU_THRESH,
            "stability_score_thresh": cfg.SEMSAM.STABILITY_SCORE_THRESH,
        }
        if semsam_cfg.MODEL.WEIGHTS:
            load_weights(self, semsam_cfg.MODEL.WEIGHTS)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Losses while training, else one ``{"instances": Instances}`` of detectron2 an image."""
        records = [self._record(x) for x in batched_inputs]
        if self.training:
            return super().forward(records)
        # With prompts in some records only, each record is a batch of its own.
        if all("prompts" in x for x in records):
            outputs = super().forward(records)
        else:
            outputs = [
                super(Detectron2Face, self).forward([x])[0] if "prompts" in x else self._segment(x)
                for x in records
            ]
        return [{**x, "instances": to_detectron2(x["instances"])} for x in outputs]

    def _record(self, record: dict[str, Any]) -> dict[str, Any]:
        converted = dict(record)
        if self.bgr:
            converted["image"] = record["image"].flip(0)
        if "instances" in record and not isinstance(record["instances"], Instances):
            converted["instances"] = from_detectron2(record["instances"])
        return converted

    def _segment(self, record: dict[str, Any]) -> dict[str, Instances]:
        """Every mask of an image without prompts."""
        image = record["image"].round().clamp(0, 255).to("cpu", torch.uint8)
        # detectron2 has resized the image already.
        min_size = min(image.shape[1:])
        model: Any = self
        generator = AutomaticMaskGenerator(model, min_size=min_size, **self.automatic)
        records = generator.generate(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
        height = record.get("height", image.shape[1])
        width = record.get("width", image.shape[2])
        masks = torch.zeros(0, *image.shape[1:], dtype=torch.bool)
        if records:
            masks = torch.from_numpy(np.stack([r["segmentation"] for r in records]))
        boxes = torch.tensor([r["bbox"] for r in records], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        scale = boxes.new_tensor([width / image.shape[2], height / image.shape[1]] * 2)
        found = Instances((height, width))
        found.pred_masks = _resize_masks(masks, (height, width))
        found.pred_boxes = Boxes(boxes * scale)
        found.scores = torch.tensor([r["predicted_iou"] for r in records])
        found.pred_classes = torch.zeros(len(records), dtype=torch.long)
        found.levels = torch.tensor([r["level"] for r in records], dtype=torch.long)
        return {"instances": found}


def _semsam_cfg(node: Any) -> CfgNode:
    if node.CONFIG_FILE:
        return load_cfg(node.CONFIG_FILE, list(node.OPTS))
    cfg = get_cfg()
    cfg.merge_from_list(list(node.OPTS))
    return cfg


def _resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """(M, h, w) bool -> (M, height, width) bool, one mask at a time to keep memory low."""
    if masks.shape[1:] == size:
        return masks
    resized = masks.new_zeros(len(masks), *size)
    for i, mask in enumerate(masks):
        smooth = F.interpolate(mask[None, None].float(), size, mode="bilinear")
        resized[i] = smooth[0, 0] > 0.5
    return resized


if importlib.util.find_spec("detectron2") is not None:
    register()
