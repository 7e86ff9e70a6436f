"""Images, their objects and prompts for models that answer prompts with masks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from semsam.config import CfgNode, configurable
from semsam.data.build import DATASET_MAPPER
from semsam.data.click_choice import choose_click
from semsam.data.prompt_sampling import draw_box_prompts, draw_prompts
from semsam.data.records import (
    Annotations,
    BadRecordError,
    LazyImage,
    decode_annotations,
    decode_regions,
)
from semsam.data.run_length import IntArray, RunLengthMasks
from semsam.data.transforms import (
    MAX_DRAWS,
    Geometry,
    LargeScaleJitter,
    ResizeShortestEdge,
    have_area,
    read_geometry,
    recolor,
)
from semsam.structures import Boxes, Instances, Prompts, PromptTargets


class _Sample(NamedTuple):
    """What is asked of an image that a geometry has moved, and what would be right."""

    geometry: Geometry
    instances: Instances
    prompts: Prompts
    targets: PromptTargets


@DATASET_MAPPER.register
class PromptableMapper:
    """Reads an image with masks; draws prompts to train on, or one click a mask to evaluate.

    Training: large-scale jitter to a square, random prompts (Semantic-SAM, sections 3.2 and 4.1).
    Of objects that have boxes alone (``regions``) the boxes are the prompts.
    Evaluation: shortest side, and for each mask, in order, the click that the dataset states or
    else the innermost pixel of the mask.

    Args:
        is_train: which of the two.
        jitter: the training augmentation.
        resize: the evaluation resize.
        num_prompts: N in training.
        max_levels: at most so many masks answer one training click.
        box_prompt_ratio: share of the training prompts that are boxes.
        prompt_noise: noise on training prompts, see ``prompt_sampling.jitter``.
        color_jitter: share by which colours vary in training, see ``recolor``.
        jpeg_draft: decode JPEGs at reduced size in training where that suffices.
    """

    @configurable
    def __init__(
        self,
        *,
        is_train: bool,
        jitter: LargeScaleJitter,
        resize: ResizeShortestEdge,
        num_prompts: int,
        max_levels: int,
        box_prompt_ratio: float = 0.0,
        prompt_noise: float = 0.0,
        color_jitter: float = 0.0,
        jpeg_draft: bool = False,
    ) -> None:
        if not 0 <= box_prompt_ratio <= 1:
            raise ValueError(f"the share of box prompts is 0 to 1, not {box_prompt_ratio}")
        self.is_train = is_train
        self.jitter = jitter
        self.resize = resize
        self.num_prompts = num_prompts
        self.max_levels = max_levels
        self.box_prompt_ratio = box_prompt_ratio
        self.prompt_noise = prompt_noise
        self.color_jitter = color_jitter
        self.jpeg_draft = jpeg_draft

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool) -> dict[str, Any]:
        """Read INPUT, and the number of answers to a prompt from MODEL.DECODER."""
        node = cfg.INPUT
        return {
            "is_train": is_train,
            **read_geometry(node),
            "num_prompts": node.NUM_PROMPTS,
            "max_levels": cfg.MODEL.DECODER.NUM_TOKENS,
            "box_prompt_ratio": node.BOX_PROMPT_RATIO,
            "prompt_noise": node.PROMPT_NOISE,
            "color_jitter": node.COLOR_JITTER,
            "jpeg_draft": node.JPEG_DRAFT,
        }

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """Map one record (see ``semsam.data.records``).

        In training ``record["rng"]``, a ``numpy.random.Generator``, gives every random number.

        Returns:
            ``image`` (uint8 (3, h, w) RGB tensor), ``instances`` (gt_boxes, gt_classes and, unless
            the record has boxes alone, gt_masks), ``prompts`` (one image's), ``targets`` (indices
            into ``instances``), ``height`` and ``width`` (the size of ``image``),
            ``original_size`` (height and width of the photo), ``file_name``, ``image_id``; of a
            record with a ``vocabulary`` all instances, else those that some prompt asks for.

        Raises:
            BadRecordError: if image or masks are damaged, no object is left, or an evaluation has
                no masks.
        """
        image = LazyImage(record)
        sample = (self._boxes if "regions" in record else self._masks)(record, image.size)
        geometry = sample.geometry
        reduce_to = geometry.resized if self.is_train and self.jpeg_draft else None
        picture = image.decode(reduce_to)
        if self.is_train:
            picture = recolor(picture, self.color_jitter, record["rng"])
        pixels = geometry.apply_image(picture)
        return {
            "image": torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
            "instances": sample.instances,
            "prompts": sample.prompts,
            "targets": sample.targets,
            "height": geometry.output[0],
            "width": geometry.output[1],
            "original_size": image.size,
            "file_name": record["file_name"],
            "image_id": record["image_id"],
        }

    def _geometries(self, record: dict[str, Any], size: tuple[int, int]) -> Iterator[Geometry]:
        """The resize of evaluation, or jitters until one leaves an object."""
        if not self.is_train:
            yield self.resize(size)
            return
        for _ in range(MAX_DRAWS):
            yield self.jitter(size, record["rng"])

    def _masks(self, record: dict[str, Any], size: tuple[int, int]) -> _Sample:
        annotations = decode_annotations(record, size)
        for geometry in self._geometries(record, size):
            masks = geometry.apply_masks(annotations.masks)
            kept = np.flatnonzero(masks.areas)
            if len(kept):
                break
        else:
            raise BadRecordError(f"{record['file_name']}: no mask is left")
        masks = masks.select(kept)
        if self.is_train:
            prompts, targets = draw_prompts(
                masks,
                self.num_prompts,
                self.max_levels,
                record["rng"],
                self.box_prompt_ratio,
                self.prompt_noise,
            )
            if "vocabulary" not in record:
                used, targets = _keep_used(targets)
                masks, kept = masks.select(used), kept[used]
            bitmaps = masks.decode()
        else:
            bitmaps = masks.decode()
            clicks = _evaluation_clicks(annotations, kept, geometry, bitmaps)
            prompts = Prompts.from_points(torch.from_numpy(clicks))
            targets = _all_levels(masks, clicks)
        instances = Instances(
            geometry.output,
            gt_masks=torch.from_numpy(bitmaps),
            gt_boxes=Boxes(torch.from_numpy(masks.boxes)),
            gt_classes=torch.from_numpy(annotations.classes[kept]),
        )
        return _Sample(geometry, instances, prompts, targets)

    def _boxes(self, record: dict[str, Any], size: tuple[int, int]) -> _Sample:
        if not self.is_train:
            raise BadRecordError(
                f"{record['file_name']}: there are no masks to click on, but boxes"
            )
        regions = decode_regions(record, size)
        for geometry in self._geometries(record, size):
            boxes = geometry.apply_boxes(regions.boxes)
            kept = np.flatnonzero(have_area(boxes))
            if len(kept):
                break
        else:
            raise BadRecordError(f"{record['file_name']}: no box is left")
        boxes = boxes[kept]
        prompts, targets = draw_box_prompts(
            boxes, geometry.output, self.num_prompts, record["rng"], self.prompt_noise
        )
        instances = Instances(
            geometry.output,
            gt_boxes=Boxes(torch.from_numpy(boxes)),
            gt_classes=torch.from_numpy(regions.classes[kept]),
        )
        return _Sample(geometry, instances, prompts, targets)


def _keep_used(targets: PromptTargets) -> tuple[IntArray, PromptTargets]:
    """Indices of the masks that some prompt refers to, and targets that count only those."""
    seeds, levels = targets.seeds.numpy(), targets.levels.numpy()
    used = np.union1d(seeds, levels[levels >= 0])
    new_levels = np.where(levels >= 0, np.searchsorted(used, levels), -1)
    new_seeds = np.searchsorted(used, seeds)
    return used, PromptTargets(torch.from_numpy(new_seeds), torch.from_numpy(new_levels))


def _evaluation_clicks(
    annotations: Annotations, kept: IntArray, geometry: Geometry, bitmaps: np.ndarray
) -> np.ndarray:
    """(N, 2) float32: the clicks that the dataset states, or the innermost pixels of the masks."""
    if annotations.clicks is None:
        return np.array([choose_click(mask) for mask in bitmaps], dtype=np.float32)
    return geometry.apply_points(annotations.clicks[kept])


def _all_levels(masks: RunLengthMasks, clicks: np.ndarray) -> PromptTargets:
    """Every mask that contains a click answers it; its own mask does in any case."""
    height, width = masks.size
    answers = []
    for seed, (x, y) in enumerate(clicks):
        column, row = int(np.clip(x, 0, width - 1)), int(np.clip(y, 0, height - 1))
        answers.append(np.union1d(masks.containing(column, row), seed))
    levels = np.full((len(answers), max(map(len, answers))), -1, dtype=np.int64)
    for seed, indices in enumerate(answers):
        levels[seed, : len(indices)] = indices
    return PromptTargets(torch.arange(len(answers)), torch.from_numpy(levels))
