"""Embeddings of the names of boxes and of captions in CLIP's text space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from semsam.config import CfgNode, configurable
from semsam.data.datasets.text_regions import encode_embeddings
from semsam.modeling.build import resolve_device
from semsam.modeling.pretrained import read_dtype
from semsam.modeling.text.clip import ClipEncoder, load_clip
from semsam.modeling.text.features import TextFeatures
from semsam.utils.batching import Batches

from .build import LABELER
from .records import Labels, MaskedPhoto


@LABELER.register
class TextEmbeddingLabeler:
    """Adds the embeddings of the ``class_name`` of each annotation, and of the photo's captions.

    Beside the annotations stands ``text_embeddings``: ``encoder``, ``dim``, ``texts`` and their
    unit vectors as ``float16``; each annotation has ``text_embedding``, its number in ``texts``.

    Args:
        encoder: the CLIP model.
        name: of the encoder, as results record it.
        batch_size: texts at once.
    """

    @configurable
    def __init__(self, encoder: ClipEncoder, name: str, batch_size: int = 256) -> None:
        self.encoder = encoder
        self.name = name
        self._features = TextFeatures(encoder.encode_text, Batches(batch_size, "the text encoder"))

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments of ``__init__`` from ``cfg.ANNOTATION.TEXT_EMBEDDING``."""
        node = cfg.ANNOTATION.TEXT_EMBEDDING
        encoder = load_clip(
            node.MODEL,
            resolve_device(cfg.MODEL.DEVICE),
            "ANNOTATION.TEXT_EMBEDDING.MODEL",
            read_dtype(cfg.ANNOTATION.DTYPE, "ANNOTATION.DTYPE"),
        )
        return {"encoder": encoder, "name": node.MODEL, "batch_size": node.BATCH_SIZE}

    def label(self, photos: Sequence[MaskedPhoto]) -> list[Labels]:
        """Embeddings of all photos, each text once.

        Raises:
            ValueError: if an annotation has no ``class_name``.
        """
        texts = [_texts(photo) for photo in photos]
        every = list(dict.fromkeys(text for its_texts in texts for text in its_texts))
        if not every:
            return [Labels([]) for _ in photos]
        vectors = dict(zip(every, self._features(every).cpu().numpy(), strict=True))
        # Texts of a group alone share batches, so that a run that is resumed rounds as it did.
        self._features.clear()
        return [
            self._labels(photo, its_texts, vectors)
            for photo, its_texts in zip(photos, texts, strict=True)
        ]

    def _labels(self, photo: MaskedPhoto, texts: Sequence[str], vectors: dict[str, Any]) -> Labels:
        if not texts:
            return Labels([])
        numbers = {text: number for number, text in enumerate(texts)}
        table = encode_embeddings(np.stack([vectors[text] for text in texts]))
        return Labels(
            [{"text_embedding": numbers[region["class_name"]]} for region in photo.annotations],
            {"text_embeddings": {"encoder": self.name, "texts": list(texts), **table}},
        )


def _texts(photo: MaskedPhoto) -> list[str]:
    """Names, then captions, each once."""
    names = [region.get("class_name") for region in photo.annotations]
    unnamed = next((number for number, name in enumerate(names) if not name), None)
    if unnamed is not None:
        raise ValueError(f"annotation {unnamed} of {photo.name} has no 'class_name'")
    return list(dict.fromkeys([*names, *photo.fields.get("captions", [])]))
