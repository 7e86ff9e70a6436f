"""Names for the masks of a model that sees them in the space of a text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from semsam.modeling.text.classifier import Classifier, top_classes
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
        parts: the names are of parts of things, for which the model has a space of its own; those
            of the model's vocabularies of parts are in any case.

    Attributes:
        model: as above.
        names: of the C classes.
        parts: whether they are read in the space of the names of parts.

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
            parts = parts or classes in naming.parts
            classes = naming.classifier(classes)
        self.parts = parts
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

    @property
    def vectors(self) -> torch.Tensor:
        """(C, D) unit vectors of the classes, averaged over their sentences."""
        return torch.nn.functional.normalize(self._classifier.weights.mean(dim=1), dim=-1)

    @torch.inference_mode()
    def probabilities(self, text: TextPrediction | None) -> torch.Tensor:
        """(B, N, K, C) float32 of each mask among the classes, of the decoder's answer."""
        return self._head.score(self._embeddings(text), self._classifier).softmax(dim=-1)

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
        """(B, N, K, D)."""
        embeddings = None if text is None else text.parts if self.parts else text.embeddings
        assert embeddings is not None, "the head says nothing"
        return embeddings

    def named(self, indices: torch.Tensor, scores: torch.Tensor) -> list[NamedScore]:
        """What a flat list of masks is called."""
        pairs = zip(indices.flatten().tolist(), scores.flatten().tolist(), strict=True)
        return [NamedScore(self.names[index], score) for index, score in pairs]


def _load(path: str | Path) -> Classifier:
    try:
        return Classifier.load(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; names are given as a list") from None
