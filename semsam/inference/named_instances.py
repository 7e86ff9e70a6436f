"""Objects of a list of classes, found by proposals that a promptable model names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from semsam.modeling.text.classifier import BACKGROUND
from semsam.structures import Instances

from .amg_utils import encode_mask
from .automatic import AutomaticMaskGenerator
from .class_names import Classes, ClassNames
from .predictor import SemSamPredictor


class _Found(NamedTuple):
    """A mask as a COCO run-length code, its score, and its class."""

    mask: Any
    score: float
    name: str


class NamedInstances:
    """Zero-shot instance segmentation: automatic masks, or masks of given boxes, with classes.

    A mask's score is the product of the probability of its class, of its predicted IoU and, with
    boxes, of the box's own score. Masks that are named ``background`` are left out.

    Args:
        predictor: of a model with a ``TextClassHead``.
        classes: C of them, as ``SemSamPredictor.predict`` takes them.
        boxes: for each ``image_id`` (N, 5) XYXY in pixels of the photo and a score; None for
            automatic masks.
        boxes_per_batch: boxes decoded at once.
        **settings: of ``AutomaticMaskGenerator``.

    Raises:
        ValueError: as ``ClassNames``.
        FileNotFoundError: as ``ClassNames``.
    """

    def __init__(
        self,
        predictor: SemSamPredictor,
        classes: Classes | ClassNames,
        boxes: Mapping[Any, NDArray[np.floating]] | None = None,
        boxes_per_batch: int = 64,
        **settings: Any,
    ) -> None:
        self.predictor = predictor
        self.classes = predictor.class_names(classes)
        self._numbers = {name: number for number, name in enumerate(self.classes.names)}
        self.boxes = boxes
        self.boxes_per_batch = boxes_per_batch
        self._generator = None
        if boxes is None:
            self._generator = AutomaticMaskGenerator(
                predictor, classes=self.classes, output_mode="coco_rle", **settings
            )

    def __call__(self, batch: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Find objects.

        Args:
            batch: records with ``photo`` (H, W, 3) uint8 RGB and ``image_id``.

        Returns:
            ``instances`` of each, as detectron2's evaluators take them: ``pred_masks`` (N COCO
            run-length codes), ``scores`` and ``pred_classes`` (N,).
        """
        return [{"instances": self._find(record)} for record in batch]

    def _find(self, record: dict[str, Any]) -> Instances:
        photo = record["photo"]
        found = self._automatic(photo) if self.boxes is None else self._in_boxes(record)
        found = [each for each in found if each.name != BACKGROUND]
        classes = [self._numbers[each.name] for each in found]
        return Instances(
            (photo.shape[0], photo.shape[1]),
            pred_masks=[each.mask for each in found],
            scores=torch.tensor([each.score for each in found], dtype=torch.float32),
            pred_classes=torch.tensor(classes, dtype=torch.long),
        )

    def _automatic(self, photo: np.ndarray) -> list[_Found]:
        assert self._generator is not None
        return [
            _Found(
                each["segmentation"],
                each["class_score"] * each["predicted_iou"],
                each["class_name"],
            )
            for each in self._generator.generate(photo)
        ]

    def _in_boxes(self, record: dict[str, Any]) -> list[_Found]:
        assert self.boxes is not None
        photo, given = record["photo"], self.boxes.get(record["image_id"])
        result: list[_Found] = []
        if given is None or not len(given):
            return result
        height, width = photo.shape[:2]
        corners = given[:, :4].clip(0, [width, height, width, height]).astype(np.float32)
        self.predictor.set_image(photo)
        for start in range(0, len(given), self.boxes_per_batch):
            part = slice(start, start + self.boxes_per_batch)
            masks, ious, _, named = self.predictor.predict_batch(
                boxes=corners[part], multimask_output=False, classes=self.classes
            )
            rows = zip(
                masks[:, 0].cpu().numpy(), ious[:, 0].tolist(), given[part, 4], named, strict=True
            )
            for mask, iou, of_box, (best,) in rows:
                score = iou * float(of_box) * best.score
                result.append(_Found(encode_mask(mask, "coco_rle"), score, best.name))
        return result
