"""How well names fit patches, by CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from semsam.modeling.text.clip import ClipEncoder
from semsam.modeling.text.features import TextFeatures
from semsam.modeling.text.templates import fill_templates
from semsam.utils.batching import Batches


class ClipScorer:
    """Scores names for patches, in batches; each name is encoded once.

    Args:
        encoder: the model.
        batch_size: patches that go through it at once; names, which are small, are eight times
            as many.

    Attributes:
        device: where the model runs.
    """

    def __init__(self, encoder: ClipEncoder, batch_size: int) -> None:
        self.device = encoder.device
        self.encoder = encoder
        self._images = Batches(batch_size, "CLIP's image tower")
        texts = Batches(8 * batch_size, "CLIP's text tower")
        self._text_features = TextFeatures(encoder.encode_text, texts)

    def image_features(self, patches: Sequence[Tensor]) -> Tensor:
        """(N, D) features of N (3, h, w) uint8 patches, at least one."""
        encoder = self.encoder
        return torch.stack(
            self._images.run(
                lambda part: list(encoder.encode_images(part).unbind()), patches, self.device
            )
        )

    def text_features(self, names: Sequence[str], templates: Sequence[str] = ("{}",)) -> Tensor:
        """Features of names.

        Args:
            names: M, at least one.
            templates: sentences with a pair of braces for the name; their features are averaged.

        Returns:
            (M, D) of unit length.
        """
        texts = fill_templates(names, templates)
        features = self._text_features(texts).unflatten(0, (len(names), len(templates)))
        return normalize(features.mean(dim=1), dim=-1)

    def logits(self, images: Tensor, texts: Tensor) -> NDArray[np.float32]:
        """(N, M) similarity of (N, D) and (M, D) features times the model's scale.

        A softmax over the texts gives probabilities.
        """
        return (self.encoder.logit_scale * images @ texts.T).cpu().numpy()

    def forget_names(self) -> None:
        """Encode every name anew from here on."""
        self._text_features.clear()


def top_names(names: Sequence[str], logits: NDArray[np.floating], k: int) -> list[str]:
    """At most k names, best first; of equal ones the earlier first.

    Args:
        names: N names.
        logits: (N,) their scores.
        k: how many are kept.
    """
    return [names[i] for i in np.argsort(-logits, kind="stable")[:k]]


def class_fields(
    names: Sequence[str], probabilities: NDArray[np.floating], k: int, threshold: float
) -> dict[str, Any]:
    """What is said of a mask whose class is one of a list.

    Args:
        names: C names.
        probabilities: (C,) of the mask.
        k: how many names are listed.
        threshold: probability below which the mask is given no name.

    Returns:
        ``class_name`` or None; ``class_proposals``, best first; ``class_score``, the best one's.
    """
    best = float(probabilities.max())
    proposals = top_names(names, probabilities, k)
    return {
        "class_name": proposals[0] if best >= threshold else None,
        "class_proposals": proposals,
        "class_score": round(best, 6),
    }
