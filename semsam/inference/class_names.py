"""Names for the masks of a model that sees them in the space of a text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from semsam.modeling.text.classifier import Classifier, is_part
from semsam.structures import TextPrediction

#: A list of names; what ``tools/build_classifier.py`` made of one, or its file; or the name of one
#: of the model's vocabularies (``MODEL.NAMING``).
Classes = Sequence[str] | Classifier | str | Path


class NamedScore(NamedTuple):
    """A class name and its probability among the classes."""

    name: str
    score: float


class ClassNames:
    """Says which of a list of classes each mask is.

    Args:
        model: with a ``TextClassHead`` among its region heads.
        classes: names are encoded by the text encoder of the model's configuration, in the sentence
            "a photo of a NAME."; a classifier has its sentences already.
        parts: all names are of parts of things, for which the model has a space of its own. Names
            as ``dog:head`` are read there in any case, if it has one.

    Raises:
        ValueError: if the model has no such head or no such space, the list is empty or has a name
            twice, or the classifier was built with another text encoder than the model's.
        FileNotFoundError: if there is no such file.
    """

    def __init__(self, model: Any, classes: Classes, parts: bool = False) -> None:
        heads = getattr(model, "region_heads", {})
        if "TextClassHead" not in heads:
            raise ValueError(
                "this model does not see masks in the space of a text encoder: classes need one "
                "with TextClassHead among MODEL.REGION_HEADS.NAMES"
            )
        self._head = heads["TextClassHead"]
        naming = getattr(model, "naming", None)
        if naming is not None and isinstance(classes, str) and classes in naming.names:
            classes = naming.classifier(classes)
        if parts and "part" not in self._head.projections:
            raise ValueError("the model has no space for names of parts (MODEL.TEXT_CLASS.PARTS)")
        if isinstance(classes, str | Path):
            classes = Classifier.load(classes)
        if not isinstance(classes, Classifier):
            classes = self._head.encode_classes(tuple(classes))
        self._classifier = classes.to(model.device)
        self.names = classes.names
        of_parts = [parts or is_part(name) for name in self.names]
        if "part" not in self._head.projections:
            of_parts = [False] * len(of_parts)
        self._of_parts = torch.tensor(of_parts, device=model.device)

    @property
    def vectors(self) -> torch.Tensor:
        """(C, D) unit vectors of the classes, averaged over their sentences."""
        return torch.nn.functional.normalize(self._classifier.weights.mean(dim=1), dim=-1)

    @torch.inference_mode()
    def probabilities(self, text: TextPrediction | None) -> torch.Tensor:
        """(B, N, K, C) float32 of each mask among the classes, of the decoder's answer."""
        assert text is not None, "the head says nothing"
        scores = self._head.score(text.embeddings, self._classifier)
        if bool(self._of_parts.any()):
            assert text.parts is not None, "the head has no space for parts"
            of_parts = self._head.score(text.parts, self._classifier)
            scores = torch.where(self._of_parts, of_parts, scores)
        return scores.softmax(dim=-1)

    def __call__(self, text: TextPrediction | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The best class of each mask.

        Args:
            text: of the decoder's answer.

        Returns:
            (B, N, K) int64 indices into ``names``, and (B, N, K) float32 probabilities.
        """
        scores, indices = self.probabilities(text).max(dim=-1)
        return indices, scores

    def named(self, indices: torch.Tensor, scores: torch.Tensor) -> list[NamedScore]:
        """What a flat list of masks is called."""
        pairs = zip(indices.flatten().tolist(), scores.flatten().tolist(), strict=True)
        return [NamedScore(self.names[index], score) for index, score in pairs]
