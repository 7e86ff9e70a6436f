"""Masks of photos that have none, from a model of semsam or of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semsam import model_zoo
from semsam.config import CfgNode, configurable
from semsam.inference import AutomaticMaskGenerator
from semsam.inference.amg_utils import (
    drop_small_islands,
    encode_mask,
    fill_small_holes,
    mask_box,
)
from semsam.modeling.build import resolve_device

from .batching import Batches
from .build import MASK_SOURCE
from .mask_sources import Item, MaskSource
from .pretrained import configured_dtype, load_model, load_processor
from .records import MaskedPhoto
from .shards import open_photos


class FoundMasks(MaskSource):
    """Masks that are found in photos that have none; subclasses say how (``find_masks``).

    Args:
        photos: without masks.
    """

    def __init__(self, photos: MaskSource) -> None:
        self.photos = photos

    def items(self) -> Sequence[Item]:
        """See ``MaskSource``."""
        return self.photos.items()

    def read(self, item: Item) -> MaskedPhoto:
        """See ``MaskSource``."""
        return self.photos.read(item)


@MASK_SOURCE.register
class GeneratedMasks(FoundMasks):
    """Masks of everything in an image, from Semantic-SAM or SAM.

    Args:
        images: a folder, an image, or TSV shards, whose annotations are not read.
        generator: with ``output_mode="coco_rle"``; its ``points_per_batch`` shrinks where memory
            runs out.

    Raises:
        ValueError: if the generator has another output mode.
    """

    @configurable
    def __init__(self, images: str | Path, generator: AutomaticMaskGenerator) -> None:
        super().__init__(open_photos(images))
        if generator.output_mode != "coco_rle":
            raise ValueError(f"output_mode is 'coco_rle' here, not '{generator.output_mode}'")
        self.generator = generator
        self.batches = Batches(generator.points_per_batch, "the mask generator")

    @classmethod
    def from_config(cls, cfg: CfgNode, images: str | Path) -> dict[str, Any]:
        """Translate the configuration."""
        masks = cfg.ANNOTATION.MASKS
        if not masks.MODEL:
            raise ValueError(
                "ANNOTATION.MASKS.MODEL names no model: give a name of the model zoo, a yaml file "
                "or the folder of a training run"
            )
        model: Any = model_zoo.get(masks.MODEL, cfg.MODEL.DEVICE, weights=masks.WEIGHTS or None)
        generator = AutomaticMaskGenerator(
            model,
            points_per_side=masks.POINTS_PER_SIDE,
            points_per_batch=masks.POINTS_PER_BATCH,
            pred_iou_thresh=masks.PRED_IOU_THRESH,
            stability_score_thresh=masks.STABILITY_SCORE_THRESH,
            crop_n_layers=masks.CROP_N_LAYERS,
            crop_n_points_downscale_factor=masks.CROP_N_POINTS_DOWNSCALE_FACTOR,
            min_mask_region_area=masks.MIN_MASK_REGION_AREA,
            output_mode="coco_rle",
        )
        return {"images": images, "generator": generator}

    def find_masks(self, photos: Sequence[MaskedPhoto]) -> list[MaskedPhoto]:
        """See ``MaskSource``; the records are those of ``AutomaticMaskGenerator.generate``."""
        # Photo by photo: it is the clicks on one that fill a batch.
        return [replace(photo, annotations=self._generate(photo)) for photo in photos]

    def _generate(self, photo: MaskedPhoto) -> list[dict[str, Any]]:
        def generate(points_per_batch: int) -> list[dict[str, Any]]:
            self.generator.points_per_batch = points_per_batch
            return self.generator.generate(photo.image)

        return self.batches.attempt(generate, self.generator.predictor.model.device)


@MASK_SOURCE.register
class TransformersMasks(FoundMasks):
    """Masks of everything in an image, from a checkpoint of transformers: SAM, SAM-HQ, SAM 2, 3.

    Records have ``segmentation``, ``area``, ``bbox``, ``predicted_iou`` and ``crop_box``;
    transformers does not tell which click a mask is of, nor how stable it is.

    Args:
        images: a folder, an image, or TSV shards, whose annotations are not read.
        model: a folder, or a name on the hub, of a model for mask generation.
        device: ``"cpu"``, ``"cuda"``, ``"auto"``.
        points_per_side: clicks on a square grid of this many a side.
        points_per_batch: clicks decoded at once; shrinks where memory runs out.
        pred_iou_thresh: a mask's predicted IoU must exceed this.
        stability_score_thresh: a mask's stability must exceed this.
        crop_n_layers: layer i runs again on 2^i x 2^i crops; 0 for the whole image only.
        crop_n_points_downscale_factor: layer i has this ** i times fewer points a side.
        min_mask_region_area: smaller holes and islands, in pixels of the image, are removed.
        dtype: of the weights; ``compute_dtype`` if None.

    Raises:
        RuntimeError: if there is no such model, it is damaged or not for mask generation; the
            message says how to place one.
    """

    @configurable
    def __init__(
        self,
        images: str | Path,
        model: str,
        device: str = "auto",
        points_per_side: int = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.86,
        stability_score_thresh: float = 0.92,
        crop_n_layers: int = 0,
        crop_n_points_downscale_factor: int = 2,
        min_mask_region_area: int = 100,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(open_photos(images))
        self.device = resolve_device(device)
        self.pipeline = _load_pipeline(model, self.device, dtype)
        self.model = self.pipeline.model
        self.batches = Batches(points_per_batch, f"masks of '{model}'")
        self.min_mask_region_area = min_mask_region_area
        self.settings = {
            "points_per_crop": points_per_side,
            "pred_iou_thresh": pred_iou_thresh,
            "stability_score_thresh": stability_score_thresh,
            "crops_n_layers": crop_n_layers,
            "crop_n_points_downscale_factor": crop_n_points_downscale_factor,
        }

    @classmethod
    def from_config(cls, cfg: CfgNode, images: str | Path) -> dict[str, Any]:
        """Translate the configuration."""
        masks = cfg.ANNOTATION.MASKS
        return {
            "images": images,
            "model": masks.MODEL,
            "device": cfg.MODEL.DEVICE,
            "points_per_side": masks.POINTS_PER_SIDE,
            "points_per_batch": masks.POINTS_PER_BATCH,
            "pred_iou_thresh": masks.PRED_IOU_THRESH,
            "stability_score_thresh": masks.STABILITY_SCORE_THRESH,
            "crop_n_layers": masks.CROP_N_LAYERS,
            "crop_n_points_downscale_factor": masks.CROP_N_POINTS_DOWNSCALE_FACTOR,
            "min_mask_region_area": masks.MIN_MASK_REGION_AREA,
            "dtype": configured_dtype(cfg),
        }

    def find_masks(self, photos: Sequence[MaskedPhoto]) -> list[MaskedPhoto]:
        """See ``MaskSource``."""
        return [replace(photo, annotations=self._find(photo)) for photo in photos]

    def _find(self, photo: MaskedPhoto) -> list[dict[str, Any]]:
        from PIL import Image

        image = Image.fromarray(photo.image)
        found: Any = self.batches.attempt(
            lambda size: self.pipeline(image, points_per_batch=size, **self.settings), self.device
        )
        records = [
            self._record(np.asarray(torch.as_tensor(mask).cpu(), dtype=bool), float(score))
            for mask, score in zip(found["masks"], found["scores"], strict=True)
        ]
        return [record for record in records if record["area"]]

    def _record(self, mask: np.ndarray, score: float) -> dict[str, Any]:
        mask = np.ascontiguousarray(mask)
        if self.min_mask_region_area > 0:
            mask, _ = fill_small_holes(mask, self.min_mask_region_area)
            mask, _ = drop_small_islands(mask, self.min_mask_region_area)
        x0, y0, x1, y1 = mask_box(mask)
        return {
            "segmentation": encode_mask(mask, "coco_rle"),
            "area": int(np.count_nonzero(mask)),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "predicted_iou": score,
            "crop_box": [0, 0, mask.shape[1], mask.shape[0]],
        }


def _load_pipeline(name: str, device: torch.device, dtype: torch.dtype | None) -> Any:
    from transformers import AutoImageProcessor, AutoModelForMaskGeneration, pipeline

    key = "ANNOTATION.MASKS.MODEL"
    model = load_model(AutoModelForMaskGeneration, name, key, device, dtype)
    # The filters that follow the model take scores and boxes of one type, and boxes are float32.
    model.register_forward_hook(_to_float32)
    processor = load_processor(AutoImageProcessor, name, key)
    return pipeline("mask-generation", model=model, image_processor=processor, device=device)


def _to_float32(model: Any, inputs: Any, output: Any) -> Any:
    output["iou_scores"] = output["iou_scores"].float()
    output["pred_masks"] = output["pred_masks"].float()
    return output
