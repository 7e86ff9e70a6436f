"""Names of a user's own classes, by a model that sees each mask in the space of a text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from semsam.config import CfgNode, configurable
from semsam.data.vocabulary import read_vocabulary
from semsam.inference import SemSamPredictor
from semsam.inference.class_names import Classes
from semsam.modeling.build import resolve_device
from semsam.modeling.pretrained import read_dtype
from semsam.structures import PromptOutput
from semsam.utils.batching import Batches

from .build import LABELER
from .clip import class_fields
from .crops import photo_boxes
from .records import Labels, MaskedPhoto


@LABELER.register
class OpenVocabularyLabeler:
    """Names each mask by one of a list of classes; a photo is encoded once for all its masks.

    The model is prompted with a mask's box, and of its answers the one that overlaps the mask most
    is named.

    Args:
        predictor: of a model with a ``TextClassHead``.
        classes: as ``SemSamPredictor.predict`` takes them.
        top_k: names that are listed for a mask.
        threshold: probability among the classes below which a mask is given no name.
        batch_size: masks at once.

    Raises:
        ValueError: if the model has no such head, the list of classes cannot be used, or they were
            encoded by another text encoder than the model's.
        FileNotFoundError: if there is no such file of classes.
    """

    @configurable
    def __init__(
        self,
        predictor: SemSamPredictor,
        classes: Classes,
        top_k: int = 3,
        threshold: float = 0.0,
        batch_size: int = 64,
    ) -> None:
        self.predictor = predictor
        self.class_names = predictor.class_names(classes)
        self.top_k = top_k
        self.threshold = threshold
        self._batches = Batches(batch_size, "the open-vocabulary model")

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments of ``__init__`` from ``cfg.ANNOTATION.OPEN_VOCABULARY``."""
        node = cfg.ANNOTATION.OPEN_VOCABULARY
        device = resolve_device(cfg.MODEL.DEVICE)
        default = torch.bfloat16 if device.type == "cuda" else torch.float32
        entries = list(node.CLASSES)
        is_file = len(entries) == 1 and entries[0].endswith(".safetensors")
        return {
            "predictor": SemSamPredictor.from_pretrained(
                node.MODEL,
                device=str(device),
                weights=node.WEIGHTS or None,
                dtype=read_dtype(cfg.ANNOTATION.DTYPE, "ANNOTATION.DTYPE") or default,
            ),
            "classes": Path(entries[0]) if is_file else read_vocabulary(entries),
            "top_k": node.TOP_K,
            "threshold": node.THRESHOLD,
            "batch_size": node.BATCH_SIZE,
        }

    def label(self, photos: Sequence[MaskedPhoto]) -> list[Labels]:
        """Names of the masks of each photo.

        Returns:
            For each mask ``class_name`` (None below the threshold), ``class_proposals``, best
            first, and ``class_score``, the best one's probability among the classes.

        Raises:
            ValueError: if a mask has no box, or its code is not of its photo's size.
        """
        # All boxes are looked at before a model runs.
        boxes = [photo_boxes(photo, scale=1.0) for photo in photos]
        return [self._label(*each) for each in zip(photos, boxes, strict=True)]

    def _label(self, photo: MaskedPhoto, boxes: NDArray[np.int64]) -> Labels:
        if not photo.annotations:
            return Labels([])
        self.predictor.set_image(photo.image)
        # To the far edges of the last pixels.
        edges = boxes + np.array([0, 0, 1, 1])

        def name(part: Sequence[int]) -> list[dict[str, Any]]:
            prompts = self.predictor.prompts(boxes=edges[list(part)])
            output = self.predictor.decode(prompts)
            probabilities = self.class_names.probabilities(output.text)[0].cpu().numpy()
            nearest = [self._nearest(output, i, photo.mask(index)) for i, index in enumerate(part)]
            return [
                class_fields(self.class_names.names, row[best], self.top_k, self.threshold)
                for row, best in zip(probabilities, nearest, strict=True)
            ]

        device = self.predictor.model.device
        return Labels(self._batches.run(name, range(len(boxes)), device))

    def _nearest(self, output: PromptOutput, row: int, mask: NDArray[np.bool_]) -> int:
        """Which answer to a prompt overlaps a mask of the photo most, at the decoder's stride."""
        found = (output.mask_logits[0, row] > 0).cpu().numpy()
        height, width = self.predictor.input_size
        resized = cv2.resize(mask.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        frame = np.zeros(output.padded_size, dtype=np.uint8)
        frame[:height, :width] = resized
        truth = cv2.resize(frame, found.shape[:0:-1], interpolation=cv2.INTER_NEAREST) > 0
        union = (found | truth).sum(axis=(1, 2))
        return int(((found & truth).sum(axis=(1, 2)) / np.maximum(union, 1)).argmax())
