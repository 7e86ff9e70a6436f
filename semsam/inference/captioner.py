"""Sentences about regions of a photo: points and boxes in, masks with captions out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from semsam import model_zoo
from semsam.modeling.postprocessing import upsample_masks_binary
from semsam.structures import Instances, PromptOutput, Prompts

from .amg_utils import outer_boxes
from .automatic import AutomaticMaskGenerator
from .predictor import SemSamPredictor


class RegionCaptioner:
    """Encodes a photo once, then says what is at points and in boxes.

    ::

        captioner = RegionCaptioner.from_pretrained("sca-vit-h-gpt2-large-vg")
        captioner.set_image(image)
        instances = captioner.caption(boxes=[[40, 30, 300, 220]])
        instances.pred_captions, instances.pred_masks

    Args:
        model: with a ``CaptionHead``, as ``model_zoo.get`` gives it.
        regions_per_batch: regions that are decoded and described at once; bounds memory.
        dtype: what products are computed in, as for ``SemSamPredictor``.

    Raises:
        ValueError: if the model has no caption head, or the number is not positive.
    """

    def __init__(
        self, model: Any, regions_per_batch: int = 64, dtype: torch.dtype = torch.float32
    ) -> None:
        if "CaptionHead" not in getattr(model, "region_heads", {}):
            raise ValueError("the model has no CaptionHead: name one in MODEL.REGION_HEADS.NAMES")
        if regions_per_batch < 1:
            raise ValueError(f"regions_per_batch is at least 1, got {regions_per_batch}")
        self.predictor = SemSamPredictor(model, dtype=dtype)
        self.head = model.region_heads["CaptionHead"]
        self.regions_per_batch = regions_per_batch

    @classmethod
    def from_pretrained(
        cls, name_or_path: str, device: str = "auto", weights: str | None = None, **kwargs: Any
    ) -> RegionCaptioner:
        """A captioner with trained weights; arguments as for ``SemSamPredictor``."""
        return cls(model_zoo.get(name_or_path, device=device, weights=weights), **kwargs)

    def set_image(self, image: np.ndarray) -> None:
        """Encode an (H, W, 3) uint8 RGB photo; later calls refer to it."""
        self.predictor.set_image(image)

    def caption(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
        num_beams: int | None = None,
        task: str | None = None,
        text_prefix: str = "",
        level: int | None = None,
    ) -> Instances:
        """Describe regions of the photo.

        Args:
            point_coords: (N, 2) a click a region, or (N, P, 2) several; pixels of the photo.
            point_labels: (N,) or (N, P), 1 foreground, 0 background; all foreground if None.
            boxes: (N, 4) XYXY pixels of the photo, alone or with the points.
            num_beams: of the search; the head's own if None.
            task: "caption" or "recognition"; the head's own if None.
            text_prefix: words that each sentence begins with, "a photo of".
            level: which of a prompt's masks is given and, where each has a caption of its own,
                described, from 1 (the whole) on; if None the one with the best predicted IoU among
                those that answer a prompt of its kind.

        Returns:
            N entries: ``pred_captions`` (list of str), ``caption_scores`` (N,) mean log-probability
            of the tokens that were not given, ``pred_masks`` (N, H, W) bool, and ``scores`` (N,),
            the mask's predicted IoU.

        Raises:
            RuntimeError: if no image is set.
            ValueError: if there is no region, or one is misshapen, without area or outside the
                photo; if the task or the level is unknown, or the text prefix as long as a caption.
        """
        given = (values for values in (point_coords, boxes) if values is not None)
        if any(torch.as_tensor(values).numel() == 0 for values in given):
            raise ValueError("there is no region to describe: the list of prompts is empty")
        prompts = self.predictor.prompts(point_coords, point_labels, boxes)
        sides = prompts.boxes[..., 2:] - prompts.boxes[..., :2]
        if bool((prompts.has_box & (sides <= 0).any(-1)).any()):
            raise ValueError(f"a box has no area: {np.asarray(boxes).tolist()}")
        parts = []
        for start in range(0, prompts.num_prompts, self.regions_per_batch):
            part = prompts.select(slice(start, start + self.regions_per_batch))
            parts.append(self._describe(part, task, num_beams, text_prefix, level))
        return Instances.cat(parts)

    def caption_everything(
        self,
        image: np.ndarray,
        num_beams: int | None = None,
        task: str | None = None,
        text_prefix: str = "",
        **kwargs: Any,
    ) -> list[dict[str, Any]]:
        """Masks of everything in a photo, each with a sentence about its box.

        The photo is encoded once, and only masks that survive all filters are described.

        Args:
            image: (H, W, 3) uint8 RGB.
            num_beams: as for ``caption``.
            task: as for ``caption``.
            text_prefix: as for ``caption``.
            **kwargs: for ``AutomaticMaskGenerator``, without crops.

        Returns:
            Its records with ``caption`` and ``caption_score`` besides.

        Raises:
            ValueError: as ``AutomaticMaskGenerator``, or if crops are asked for.
        """
        if kwargs.get("crop_n_layers"):
            raise ValueError("captions of crops are not offered: crop_n_layers must be 0")
        # It leaves the photo's features in the predictor.
        records = AutomaticMaskGenerator(self.predictor, **kwargs).generate(image)
        self.caption_masks(records, num_beams, task, text_prefix)
        return records

    def caption_masks(
        self,
        records: list[dict[str, Any]],
        num_beams: int | None = None,
        task: str | None = None,
        text_prefix: str = "",
    ) -> None:
        """Add a sentence about its box to each mask of the photo, of whatever model.

        Args:
            records: as ``AutomaticMaskGenerator`` gives them; get ``caption`` and
                ``caption_score``.
            num_beams: as for ``caption``.
            task: as for ``caption``.
            text_prefix: as for ``caption``.

        Raises:
            RuntimeError: if no image is set.
        """
        if not records:
            return
        found = self.caption(
            boxes=outer_boxes(records), num_beams=num_beams, task=task, text_prefix=text_prefix
        )
        for record, text, score in zip(
            records, found.pred_captions, found.caption_scores.tolist(), strict=True
        ):
            record.update(caption=text, caption_score=score)

    def _describe(
        self,
        prompts: Prompts,
        task: str | None,
        num_beams: int | None,
        text_prefix: str,
        level: int | None,
    ) -> Instances:
        output = self.predictor.decode(prompts)
        shown = self._shown_masks(output, level)
        with self.predictor.inference():
            captions, scores = self.head.describe(output, task, num_beams, text_prefix, shown)
        rows = torch.arange(len(shown), device=shown.device)
        found = Instances(self.predictor.image_size)
        found.pred_captions = captions
        found.caption_scores = scores
        found.pred_masks = upsample_masks_binary(
            output.mask_logits[0, rows, shown],
            output.padded_size,
            self.predictor.input_size,
            self.predictor.image_size,
        )
        found.scores = output.scores[0, rows, shown]
        return found

    @staticmethod
    def _shown_masks(output: PromptOutput, level: int | None) -> Tensor:
        """(N,) index of the mask that stands for each prompt."""
        best = output.best_masks()[0]
        if level is None:
            return best
        order = output.level_order
        if not 1 <= level <= len(order):
            raise ValueError(f"level is 1 to {len(order)} with this model, got {level}")
        return torch.full_like(best, order[level - 1])
