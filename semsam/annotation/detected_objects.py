"""Boxes of what captions and a language model name: the data engine of open-vocabulary SAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from semsam.config import CfgNode, configurable
from semsam.modeling.build import resolve_device

from .build import MASK_SOURCE
from .caption_candidates import Candidate, CandidateFinder
from .captioned_photos import CaptionedPhotos
from .detectors import Detection, ZeroShotDetector
from .mask_models import FoundMasks
from .noun_phrases import NounPhrases
from .pretrained import configured_dtype
from .records import MaskedPhoto
from .text_writer import TextWriter


@MASK_SOURCE.register
class DetectedObjects(FoundMasks):
    """Annotations with a box and no mask, found by a detector that is told what to look for.

    A photo's fields are ``captions``; ``candidates``, names and where each comes from (see
    ``Candidate``); and ``generated_by``: ``language_model``, ``templates`` and ``detector``. Its
    annotations have ``id``, ``bbox``, ``area`` (of the box), ``class_name``, ``score`` and
    ``candidate``, the index of its candidate.

    Args:
        photos: with their captions.
        find_candidates: names what may be in the photos.
        detector: finds it.
        made_by: what ``generated_by`` says of the models' names.
    """

    @configurable
    def __init__(
        self,
        photos: CaptionedPhotos,
        find_candidates: CandidateFinder,
        detector: ZeroShotDetector,
        made_by: dict[str, str],
    ) -> None:
        super().__init__(photos)
        self.find_candidates = find_candidates
        self.detector = detector
        self.made_by = {**made_by, "templates": find_candidates.templates}

    @classmethod
    def from_config(cls, cfg: CfgNode, images: str | Path) -> dict[str, Any]:
        """Translate the configuration."""
        node = cfg.ANNOTATION.DATA_ENGINE
        device = resolve_device(cfg.MODEL.DEVICE)
        dtype = configured_dtype(cfg)
        # Before models are loaded: captions that do not fit are known in a second.
        photos = CaptionedPhotos(images, node.CAPTIONS, node.MAX_CAPTIONS)
        writer = None
        if node.TEMPLATES:
            writer = TextWriter(
                node.LANGUAGE_MODEL,
                device,
                "ANNOTATION.DATA_ENGINE.LANGUAGE_MODEL",
                gguf_file=node.GGUF_FILE,
                chat=node.CHAT,
                max_new_tokens=node.MAX_NEW_TOKENS,
                num_beams=node.NUM_BEAMS,
                repetition_penalty=node.REPETITION_PENALTY,
                batch_size=node.LANGUAGE_BATCH_SIZE,
                dtype=dtype,
            )
        detector = ZeroShotDetector(
            node.DETECTOR,
            device,
            "ANNOTATION.DATA_ENGINE.DETECTOR",
            threshold=node.THRESHOLD,
            nms_threshold=node.NMS_THRESHOLD,
            max_boxes=node.MAX_BOXES,
            batch_size=node.DETECTOR_BATCH_SIZE,
            dtype=dtype,
        )
        return {
            "photos": photos,
            "find_candidates": CandidateFinder(
                writer, node.TEMPLATES, NounPhrases(node.SPACY_MODEL)
            ),
            "detector": detector,
            "made_by": {
                "language_model": node.LANGUAGE_MODEL if writer else "",
                "detector": node.DETECTOR,
            },
        }

    def find_masks(self, photos: Sequence[MaskedPhoto]) -> list[MaskedPhoto]:
        """See ``MaskSource``; a photo without captions, or of which nothing is found, has none."""
        candidates = self.find_candidates([photo.fields["captions"] for photo in photos])
        found = self.detector(
            [photo.image for photo in photos],
            [[candidate.name for candidate in its] for its in candidates],
        )
        return [
            self._with_boxes(photo, its_candidates, boxes)
            for photo, its_candidates, boxes in zip(photos, candidates, found, strict=True)
        ]

    def _with_boxes(
        self, photo: MaskedPhoto, candidates: Sequence[Candidate], boxes: Sequence[Detection]
    ) -> MaskedPhoto:
        fields = {
            **photo.fields,
            "candidates": [candidate.as_json() for candidate in candidates],
            "generated_by": self.made_by,
        }
        annotations = []
        for number, found in enumerate(boxes):
            x0, y0, x1, y1 = (round(value, 2) for value in found.box)
            width, height = round(x1 - x0, 2), round(y1 - y0, 2)
            annotations.append(
                {
                    "id": number,
                    "bbox": [x0, y0, width, height],
                    "area": round(width * height, 2),
                    "class_name": candidates[found.phrase].name,
                    "score": round(found.score, 4),
                    "candidate": found.phrase,
                }
            )
        return replace(photo, annotations=annotations, fields=fields)
