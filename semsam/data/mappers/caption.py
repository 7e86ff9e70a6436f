"""Images and their described regions, for models that answer a box with a caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from semsam.config import CfgNode, configurable
from semsam.data.build import DATASET_MAPPER
from semsam.data.prompt_sampling import jitter_boxes
from semsam.data.records import BadRecordError, LazyImage, Regions, decode_regions
from semsam.data.run_length import IntArray, RunLengthMasks
from semsam.data.text_flip import flip_caption
from semsam.data.transforms import (
    MAX_DRAWS,
    Geometry,
    LargeScaleJitter,
    ResizeShortestEdge,
    have_area,
    read_geometry,
)
from semsam.structures import Boxes, Instances, Prompts, PromptTargets


@DATASET_MAPPER.register
class CaptionMapper:
    """Reads an image with described regions; each region's box is a prompt.

    Training: large-scale jitter to a square, a random choice of regions, a random phrase of each
    (SCA, "Segment and Caption Anything", section 4). An image is mirrored only where every chosen
    phrase stays true, "left" and "right" swapped. Evaluation: the image resized, all regions in
    their order, all phrases as references.

    Records whose regions have embeddings of their names (``text_regions_tsv://``) train a model to
    name them; they have no masks to learn, and their boxes, which a detector found, get noise.

    Args:
        is_train: which of the two.
        jitter: the training augmentation.
        resize: the evaluation resize.
        num_prompts: at most so many regions an image in training.
        learn_masks: give the masks of the regions in training, which then all have one.
        prompt_noise: of the boxes of names with embeddings, see ``prompt_sampling.jitter``.
        text_prompt_ratio: share of the training prompts that are the box and its name, where names
            have embeddings.
        padding: colour of what the jitter pads, RGB; the pixel mean, which the model sees as 0.
        jpeg_draft: decode JPEGs at reduced size in training where that suffices.
    """

    @configurable
    def __init__(
        self,
        *,
        is_train: bool,
        jitter: LargeScaleJitter,
        resize: ResizeShortestEdge,
        num_prompts: int = 16,
        learn_masks: bool = False,
        prompt_noise: float = 0.0,
        text_prompt_ratio: float = 0.0,
        padding: Sequence[int] = (124, 116, 104),
        jpeg_draft: bool = False,
    ) -> None:
        if num_prompts < 1:
            raise ValueError(f"INPUT.NUM_PROMPTS is at least 1, not {num_prompts}")
        self.is_train = is_train
        self.jitter = jitter
        self.resize = resize
        self.num_prompts = num_prompts
        self.learn_masks = learn_masks
        if not 0 <= text_prompt_ratio <= 1:
            raise ValueError(f"INPUT.TEXT_PROMPT_RATIO is 0 to 1, not {text_prompt_ratio}")
        self.prompt_noise = prompt_noise
        self.text_prompt_ratio = text_prompt_ratio
        self.padding = tuple(padding)
        self.jpeg_draft = jpeg_draft

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool) -> dict[str, Any]:
        """Read INPUT; MODEL says whether masks are learned, and the colour of the padding."""
        node = cfg.INPUT
        return {
            "is_train": is_train,
            **read_geometry(node),
            "num_prompts": node.NUM_PROMPTS,
            "learn_masks": bool(cfg.MODEL.CRITERION.NAME),
            "prompt_noise": node.PROMPT_NOISE,
            "text_prompt_ratio": node.TEXT_PROMPT_RATIO,
            "padding": [round(value) for value in cfg.MODEL.PIXEL_MEAN],
            "jpeg_draft": node.JPEG_DRAFT,
        }

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """Map one record (see ``semsam.data.records``).

        In training ``record["rng"]``, a ``numpy.random.Generator``, gives every random number: the
        jitter's, the order of the regions, the phrase of each, further jitters where one left no
        region.

        Returns:
            ``image`` (uint8 (3, h, w) RGB tensor), ``prompts`` (one image's boxes, XYXY pixels of
            ``image``), ``file_name``, ``image_id``, and ``height`` and ``width`` of the frame in
            which results are wanted: in training that of ``image``, else the photo's. In training
            also ``instances`` (gt_boxes as the prompts, gt_captions: a text each, gt_masks if they
            are learned, gt_text_embeddings (N, D) if the record has embeddings), ``targets`` (each
            prompt is answered by its own region) and, with embeddings, ``text_encoder``; else
            ``region_ids`` (list of int), ``references`` (a list of texts each), and
            ``predict_masks`` False: words are evaluated.

        Raises:
            BadRecordError: if the image or a region is damaged, or no region is left.
        """
        image = LazyImage(record)
        embeddings = record.get("text_embeddings") if self.is_train else None
        with_masks = self.is_train and self.learn_masks and embeddings is None
        regions = decode_regions(record, image.size, with_masks)
        source = {"file_name": record["file_name"], "image_id": record["image_id"]}
        if not self.is_train:
            geometry = self.resize(image.size)
            return {
                "image": self._pixels(image, geometry),
                "prompts": Prompts.from_boxes(
                    torch.from_numpy(geometry.apply_boxes(regions.boxes))
                ),
                "region_ids": regions.ids,
                "references": regions.phrases,
                "predict_masks": False,
                "height": image.size[0],
                "width": image.size[1],
                **source,
            }
        geometry, numbers, captions = self._draw(record, image.size, regions)
        boxes = torch.from_numpy(geometry.apply_boxes(regions.boxes[numbers]))
        instances = Instances(geometry.output, gt_boxes=Boxes(boxes), gt_captions=captions)
        if regions.masks is not None:
            instances.gt_masks = _bitmaps(geometry, regions.masks, numbers)
        prompts = Prompts.from_boxes(boxes)
        if embeddings is not None:
            instances.gt_text_embeddings = torch.from_numpy(embeddings[numbers])
            source["text_encoder"] = record["encoder"]
            if self.prompt_noise:
                noisy = jitter_boxes(
                    boxes.numpy().astype(np.float64),
                    self.prompt_noise,
                    geometry.output,
                    record["rng"],
                )
                prompts = Prompts.from_boxes(torch.from_numpy(noisy))
            if self.text_prompt_ratio:
                prompts = prompts.with_texts(instances.gt_text_embeddings)
                said = record["rng"].random(len(captions)) < self.text_prompt_ratio
                prompts = replace(prompts, has_text=torch.from_numpy(said)[None])
        own = torch.arange(len(captions))
        return {
            "image": self._pixels(image, geometry),
            "prompts": prompts,
            "instances": instances,
            "targets": PromptTargets(own, own[:, None]),
            "height": geometry.output[0],
            "width": geometry.output[1],
            **source,
        }

    def _pixels(self, image: LazyImage, geometry: Geometry) -> torch.Tensor:
        reduce_to = geometry.resized if self.is_train and self.jpeg_draft else None
        pixels = geometry.apply_image(image.decode(reduce_to), self.padding)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    def _draw(
        self, record: dict[str, Any], size: tuple[int, int], regions: Regions
    ) -> tuple[Geometry, IntArray, list[str]]:
        """Geometry, and the (N,) regions of a training sample with a caption each."""
        rng = record["rng"]
        # An embedding is of the phrase as it was.
        may_change = "text_embeddings" not in record
        geometry = self.jitter(size, rng)
        order = rng.permutation(len(regions.ids))
        # For every region, so that these draws do not hang on which of them stay.
        choices = rng.integers(0, [len(phrases) for phrases in regions.phrases])
        phrases = [texts[choice] for texts, choice in zip(regions.phrases, choices, strict=True)]
        for _ in range(MAX_DRAWS):
            placed, numbers, captions = self._place(
                geometry, order, regions.boxes, phrases, may_change
            )
            if captions:
                return placed, numbers, captions
            geometry = self.jitter(size, rng)
        raise BadRecordError(f"{record['file_name']}: {MAX_DRAWS} crops left no region")

    def _place(
        self,
        geometry: Geometry,
        order: IntArray,
        boxes: np.ndarray,
        phrases: list[str],
        may_change: bool,
    ) -> tuple[Geometry, IntArray, list[str]]:
        """The first regions that stay inside; without the flip where a caption forbids it."""
        moved = geometry.apply_boxes(boxes[order])
        numbers = order[have_area(moved)][: self.num_prompts]
        captions = [phrases[number] for number in numbers]
        if not geometry.flip:
            return geometry, numbers, captions
        flipped = [text for text in map(flip_caption, captions) if text is not None]
        if len(flipped) == len(captions) and (may_change or flipped == captions):
            return geometry, numbers, flipped
        return self._place(geometry.unflipped(), order, boxes, phrases, may_change)


def _bitmaps(geometry: Geometry, masks: RunLengthMasks, numbers: IntArray) -> torch.Tensor:
    """(N, h, w) bool: the asked ones, in their order, as the geometry leaves them."""
    ascending, place = np.unique(numbers, return_inverse=True)
    bitmaps = geometry.apply_masks(masks.select(ascending)).decode()
    return torch.from_numpy(bitmaps[place])
