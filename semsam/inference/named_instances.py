"""Objects of a list of classes, found by proposals that a promptable model names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from semsam.structures import Instances

from .amg_utils import encode_mask
from .automatic import AutomaticMaskGenerator
from .class_names import Classes, ClassNames, NamedScore
from .predictor import SemSamPredictor


class NamedInstances:
    """Zero-shot instance segmentation: automatic masks, or masks of given boxes, with classes.

    A mask's score is the product of the probability of its class, of its predicted IoU and, with
    boxes, of the box's own score.

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
        if self._generator is not None:
            records = self._generator.generate(photo)
            masks = [found["segmentation"] for found in records]
            scores = [found["class_score"] * found["predicted_iou"] for found in records]
            names = [found["class_name"] for found in records]
        else:
            assert self.boxes is not None
            given = self.boxes.get(record["image_id"], np.zeros((0, 5)))
            masks, scores, names = self._in_boxes(photo, np.asarray(given, dtype=np.float32))
        return Instances(
            (photo.shape[0], photo.shape[1]),
            pred_masks=masks,
            scores=torch.tensor(scores, dtype=torch.float32),
            pred_classes=torch.tensor([self._numbers[name] for name in names], dtype=torch.long),
        )

    def _in_boxes(
        self, photo: np.ndarray, given: NDArray[np.float32]
    ) -> tuple[list[Any], list[float], list[str]]:
        masks: list[Any] = []
        scores: list[float] = []
        names: list[str] = []
        if not len(given):
            return masks, scores, names
        height, width = photo.shape[:2]
        given = np.concatenate(
            [given[:, :4].clip(0, [width, height, width, height]), given[:, 4:]], axis=1
        )
        self.predictor.set_image(photo)
        for start in range(0, len(given), self.boxes_per_batch):
            part = given[start : start + self.boxes_per_batch]
            found, ious, _, named = self.predictor.predict_batch(
                boxes=part[:, :4], multimask_output=False, classes=self.classes
            )
            best: list[NamedScore] = [of_box[0] for of_box in named]
            masks += [encode_mask(mask, "coco_rle") for mask in found[:, 0].cpu().numpy()]
            products = ious[:, 0].float().cpu().numpy() * part[:, 4] * [x.score for x in best]
            scores += products.tolist()
            names += [x.name for x in best]
        return masks, scores, names
