"""Names of a user's own vocabulary, by CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from semsam.config import CfgNode, configurable
from semsam.data.vocabulary import read_vocabulary
from semsam.modeling.build import resolve_device
from semsam.modeling.pretrained import read_dtype
from semsam.modeling.text.clip import ClipEncoder, load_clip
from semsam.modeling.text.templates import check_templates

from .build import LABELER
from .clip import ClipScorer, class_fields
from .crops import SMALL, cut, image_tensor, photo_boxes
from .records import Labels, MaskedPhoto


@LABELER.register
class ClipLabeler:
    """Names each mask by the word of a vocabulary that fits the patch around it best.

    Args:
        encoder: the CLIP model.
        vocabulary: names, each once.
        templates: sentences with a pair of braces for the name; their features are averaged.
        top_k: names that are listed for a mask.
        threshold: probability among the vocabulary below which a mask is given no name.
        batch_size: patches at once.

    Raises:
        ValueError: if the vocabulary is empty, or a template has no place for the name.
    """

    @configurable
    def __init__(
        self,
        encoder: ClipEncoder,
        vocabulary: Sequence[str],
        templates: Sequence[str] = ("a photo of a {}.",),
        top_k: int = 3,
        threshold: float = 0.0,
        batch_size: int = 32,
    ) -> None:
        if not vocabulary:
            raise ValueError("ANNOTATION.CLIP.VOCABULARY is empty")
        check_templates(templates, "ANNOTATION.CLIP.TEMPLATES")
        self.vocabulary = list(vocabulary)
        self.top_k = top_k
        self.threshold = threshold
        self._device = encoder.device
        self.scorer = ClipScorer(encoder, batch_size)
        self._texts = self.scorer.text_features(self.vocabulary, templates)
        self.scorer.forget_names()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments of ``__init__`` from ``cfg.ANNOTATION.CLIP``."""
        node = cfg.ANNOTATION.CLIP
        return {
            "vocabulary": read_vocabulary(node.VOCABULARY),
            "encoder": load_clip(
                node.MODEL,
                resolve_device(cfg.MODEL.DEVICE),
                "ANNOTATION.CLIP.MODEL",
                read_dtype(cfg.ANNOTATION.DTYPE, "ANNOTATION.DTYPE"),
            ),
            "templates": node.TEMPLATES,
            "top_k": node.TOP_K,
            "threshold": node.THRESHOLD,
            "batch_size": node.BATCH_SIZE,
        }

    def label(self, photos: Sequence[MaskedPhoto]) -> list[Labels]:
        """Names of all masks of all photos.

        Returns:
            For each mask ``class_name`` (None below the threshold), ``class_proposals`` and
            ``class_score``, the best name's probability.

        Raises:
            ValueError: if a mask has no box.
        """
        boxes = [photo_boxes(photo, SMALL) for photo in photos]
        patches = [
            patch
            for photo, its_boxes in zip(photos, boxes, strict=True)
            for patch in cut(image_tensor(photo.image, self._device), its_boxes)
        ]
        if not patches:
            return [Labels([]) for _ in photos]
        features = self.scorer.image_features(patches)
        logits = self.scorer.logits(features, self._texts)
        probabilities = torch.from_numpy(logits).softmax(dim=1).numpy()
        regions = iter(
            class_fields(self.vocabulary, row, self.top_k, self.threshold) for row in probabilities
        )
        return [Labels([next(regions) for _ in photo.annotations]) for photo in photos]
