"""Names for the masks of a model that sees them in the space of a text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from semsam.modeling.text.classifier import Classifier, class_scores, is_part, top_classes
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

    Attributes:
        model: as above.
        names: of the C classes.
        parts: whether any of them is read in the space of the names of parts.

    Raises:
        ValueError: if the model has no such head or no such space, the list is empty or has a name
            twice, or the classifier was built with another text encoder than the model's, or has
            other channels; names the classifier's file.
        FileNotFoundError: if there is no such file.
    """

    def __init__(self, model: Any, classes: Classes, parts: bool = False) -> None:
        heads = getattr(model, "region_heads", {})
        if "TextClassHead" not in heads:
            raise ValueError(
                "this model does not see masks in the space of a text encoder: classes need one "
                "with TextClassHead among MODEL.REGION_HEADS.NAMES"
            )
        self.model = model
        self._head = heads["TextClassHead"]
        naming = getattr(model, "naming", None)
        if naming is not None and isinstance(classes, str) and classes in naming.names:
            classes = naming.classifier(classes)
        if parts and "part" not in self._head.projections:
            raise ValueError("the model has no space for names of parts (MODEL.TEXT_CLASS.PARTS)")
        source = ""
        if isinstance(classes, str | Path):
            source, classes = f"'{classes}': ", _load(classes)
        if not isinstance(classes, Classifier):
            classes = self._head.encode_classes(tuple(classes))
        try:
            self._head.check_classifier(classes)
        except ValueError as error:
            raise ValueError(f"{source}{error}") from None
        self._classifier = classes.to(model.device)
        self.names = classes.names
        has_parts = "part" in self._head.projections
        of_parts = [has_parts and (parts or is_part(name)) for name in self.names]
        self.parts = any(of_parts)
        if self.parts:
            self._classifier = _in_both_spaces(self._classifier, torch.tensor(of_parts))

    @property
    def vectors(self) -> torch.Tensor:
        """(C, D) unit vectors of the classes, averaged over their sentences; of parts (C, 2D)."""
        return torch.nn.functional.normalize(self._classifier.weights.mean(dim=1), dim=-1)

    @torch.inference_mode()
    def probabilities(self, text: TextPrediction | None) -> torch.Tensor:
        """(B, N, K, C) float32 of each mask among the classes, of the decoder's answer."""
        scores = class_scores(self._embeddings(text), self._classifier, self._head.scale())
        return scores.softmax(dim=-1)

    @torch.inference_mode()
    def __call__(self, text: TextPrediction | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The best class of each mask; not all C scores of all masks are held at once.

        Args:
            text: of the decoder's answer.

        Returns:
            (B, N, K) int64 indices into ``names``, and (B, N, K) float32 probabilities.
        """
        scale = self._head.scale()
        best = top_classes(self._embeddings(text), self._classifier, scale=scale)
        return best.ids[..., 0], best.values[..., 0]

    def _embeddings(self, text: TextPrediction | None) -> torch.Tensor:
        """(B, N, K, D), or (B, N, K, 2D) for both spaces."""
        assert text is not None, "the head says nothing"
        if not self.parts:
            return text.embeddings
        assert text.parts is not None, "the head has no space for parts"
        return torch.cat([text.embeddings, text.parts], dim=-1)

    def named(self, indices: torch.Tensor, scores: torch.Tensor) -> list[NamedScore]:
        """What a flat list of masks is called."""
        pairs = zip(indices.flatten().tolist(), scores.flatten().tolist(), strict=True)
        return [NamedScore(self.names[index], score) for index, score in pairs]


def _in_both_spaces(classifier: Classifier, of_parts: torch.Tensor) -> Classifier:
    """Vectors for embeddings of both spaces one after the other: zeros where a name is not read."""
    part = of_parts.to(classifier.weights)[:, None, None]
    weights = torch.cat([classifier.weights * (1 - part), classifier.weights * part], dim=-1)
    return replace(classifier, weights=weights)


def _load(path: str | Path) -> Classifier:
    try:
        return Classifier.load(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; names are given as a list") from None
