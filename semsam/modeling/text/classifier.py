"""Class names as a classifier of embeddings: its file, its cache, its scores."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from semsam.utils.batching import Batches
from semsam.utils.file_io import atomic_write

from .encoder import TextEncoder, is_same_encoder
from .templates import check_templates, fill_templates

logger = logging.getLogger(__name__)

#: The one name that several rows may have; a mask of it is of no class.
BACKGROUND = "background"
#: Rows for what is of no class: none, the word, or "not a NAME" for every name.
BACKGROUNDS = ("none", "word", "not")
#: Unicode's control characters and separators of lines and paragraphs.
_BREAKS = ("Cc", "Zl", "Zp")
REDUCTIONS = ("max", "mean")
#: Products that are held at once while scores are computed: 16 MiB of float32.
CHUNK = 2**22


@dataclass(frozen=True, eq=False)
class Classifier:
    """A vocabulary in the space of a text encoder.

    Attributes:
        names: C class names, each once but ``background``.
        weights: (C, T, D) float32 of unit length; T sentences a name, one if they are averaged.
        encoder: ``TextEncoder.name`` of the encoder that made it.

    Raises:
        ValueError: if there is no name, one is empty, stands twice or has a line break, or weights
            are not one row a name.
    """

    names: tuple[str, ...]
    weights: Tensor
    encoder: str

    def __post_init__(self) -> None:
        check_names([name for name in self.names if name != BACKGROUND] or self.names[:1])
        if self.weights.ndim != 3 or len(self.weights) != len(self.names):
            raise ValueError(
                f"weights of {len(self.names)} names are ({len(self.names)}, T, D), "
                f"not {tuple(self.weights.shape)}"
            )

    def to(self, device: torch.device | str) -> Classifier:
        """The classifier with its weights on a device."""
        return replace(self, weights=self.weights.to(device))

    def save(self, path: str | Path) -> None:
        """Write weights and names as one safetensors file, which appears when it is whole."""
        told = {"names": json.dumps(self.names), "encoder": self.encoder}
        weights = {"weights": self.weights.cpu().contiguous()}
        with atomic_write(path, "wb") as file:
            file.write(safetensors.torch.save(weights, metadata=told))

    @staticmethod
    def load(path: str | Path) -> Classifier:
        """Read what ``save`` wrote.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is damaged or no classifier; names the file.
        """
        try:
            with safe_open(path, framework="pt") as file:
                told = file.metadata() or {}
                weights = file.get_tensor("weights")
            return Classifier(tuple(json.loads(told["names"])), weights, told["encoder"])
        except FileNotFoundError:
            raise FileNotFoundError(f"classifier '{path}' does not exist") from None
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise ValueError(
                f"'{path}' is no classifier of tools/build_classifier.py: {error}"
            ) from error


def check_names(names: Sequence[str]) -> None:
    """Find fault with a list of class names.

    Raises:
        ValueError: if it is empty, or a name is no text or empty, stands twice, or has a line break
            or another control character; says where.
    """
    if not names:
        raise ValueError("the list of classes is empty")
    rows: dict[str, int] = {}
    for row, name in enumerate(names):
        if not isinstance(name, str):
            raise ValueError(f"class {row} is {name!r}: names are text")
        if not name.strip():
            raise ValueError(f"class {row} has an empty name")
        odd = not name.isprintable()
        if odd and any(unicodedata.category(letter) in _BREAKS for letter in name):
            raise ValueError(f"class {row} has a line break or a control character: {name!r}")
        if name in rows:
            raise ValueError(f"class {row} is called '{name}', as class {rows[name]} is")
        rows[name] = row


def is_part(name: str) -> bool:
    """Whether a class is a part of something, which its name ``whole:part`` says."""
    return ":" in name


def check_encoder(classifier: Classifier, encoder: str) -> None:
    """Find fault with a vocabulary for a model.

    Args:
        classifier: the vocabulary.
        encoder: ``TextEncoder.name`` of the encoder that the model's embeddings are trained for;
            or its label alone (``model_label``).

    Raises:
        ValueError: if the vocabulary was made with another one.
    """
    if not is_same_encoder(classifier.encoder, encoder):
        raise ValueError(
            f"the classifier was built with the text encoder '{classifier.encoder}', the model's "
            f"is '{encoder}': build it anew with the model's"
        )


def build_classifier(
    names: Sequence[str],
    encoder: TextEncoder,
    templates: Sequence[str] = ("{}",),
    *,
    average: bool = True,
    background: str = "none",
    batch_size: int = 256,
) -> Classifier:
    """Encode a vocabulary.

    Args:
        names: C class names.
        encoder: encodes them; without gradients.
        templates: sentences with a pair of braces for the name.
        average: keep the mean of a name's sentences, of unit length, instead of each.
        background: rows that are added under the name ``background``: see ``BACKGROUNDS``.
        batch_size: sentences at once.

    Returns:
        The classifier, on the CPU.

    Raises:
        ValueError: as ``check_names`` and ``check_templates``; or if there is no such background,
            or the names have one already.
    """
    check_names(names)
    check_templates(templates, "templates")
    if background not in BACKGROUNDS:
        raise ValueError(f"background is one of {', '.join(BACKGROUNDS)}, not '{background}'")
    extra = {"none": [], "word": [BACKGROUND], "not": [f"not a {name}" for name in names]}
    extra_rows = extra[background]
    if extra_rows and BACKGROUND in names:
        raise ValueError(f"the names have '{BACKGROUND}' already: ask for no other")

    @torch.inference_mode()
    def encode(part: Sequence[str]) -> Sequence[Tensor]:
        # "dog:head", a part, is said as "dog head".
        words = [name.replace(":", " ") if is_part(name) else name for name in part]
        features = encoder(fill_templates(words, templates)).unflatten(0, (len(part), -1))
        if average:
            features = unit(features.mean(dim=1, keepdim=True))
        return features.cpu().unbind()

    batches = Batches(max(batch_size // len(templates), 1), "the text encoder")
    weights = torch.stack(batches.run(encode, [*names, *extra_rows]))
    return Classifier((*names, *[BACKGROUND] * len(extra_rows)), weights, encoder.name)


def cached_classifier(
    names: Sequence[str],
    encoder: TextEncoder,
    templates: Sequence[str] = ("{}",),
    *,
    average: bool = True,
    background: str = "none",
    batch_size: int = 256,
    folder: str | Path | None = None,
) -> Classifier:
    """As :func:`build_classifier`, once for the same names, sentences and encoder.

    Args:
        names: as there, and so on.
        encoder: its name, and so the digest of its weights, is part of the key.
        templates: as there.
        average: as there.
        background: as there.
        batch_size: as there.
        folder: where classifiers are kept; ``~/.cache/semsam/classifiers`` if None.

    Raises:
        ValueError: as there.
    """
    key = json.dumps([[*names], encoder.name, [*templates], average, background])
    home = Path(folder) if folder else Path.home() / ".cache/semsam/classifiers"
    path = home / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"
    try:
        return Classifier.load(path)
    except FileNotFoundError:
        pass
    except ValueError as error:
        logger.warning("%s: it is built again", error)
    built = build_classifier(
        names,
        encoder,
        templates,
        average=average,
        background=background,
        batch_size=batch_size,
    )
    built.save(path)
    return built


def unit(x: Tensor) -> Tensor:
    """(..., D) -> the same direction with a length of one, as Semantic-SAM computes it."""
    return x / (x.norm(dim=-1, keepdim=True) + 1e-7)


def class_scores(
    embeddings: Tensor,
    classifier: Classifier,
    scale: float | Tensor = 1.0,
    reduction: str = "max",
    chunk: int = CHUNK,
) -> Tensor:
    """Cosine similarity of embeddings and classes.

    Args:
        embeddings: (..., D) of unit length.
        classifier: C classes; its weights are best on the embeddings' device.
        scale: factor on the similarities, positive.
        reduction: what is taken of a name's T sentences, ``max`` or ``mean``.
        chunk: products that are held at once; the result itself has C an embedding.

    Returns:
        (..., C) float32.

    Raises:
        ValueError: if channels differ, or there is no such reduction.
    """
    weights = _table(classifier, embeddings.shape[-1], reduction)
    scores = _scores(embeddings.reshape(-1, weights.shape[2]), weights, scale, chunk)
    return scores.reshape(*embeddings.shape[:-1], len(weights))


def _table(classifier: Classifier, dim: int, reduction: str) -> Tensor:
    """(C, T, D) whose best product is the score; the mean of products is one with the mean."""
    weights = classifier.weights
    if dim != weights.shape[2]:
        raise ValueError(
            f"embeddings have {dim} channels, the classifier of '{classifier.encoder}' "
            f"{weights.shape[2]}"
        )
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is max or mean, not '{reduction}'")
    average = reduction == "mean" and weights.shape[1] > 1
    return weights.mean(dim=1, keepdim=True) if average else weights


def _scores(flat: Tensor, weights: Tensor, scale: float | Tensor, chunk: int) -> Tensor:
    """(M, D) and (C, T, D) -> (M, C); ``chunk`` products at once."""
    size = max(chunk // max(len(flat) * weights.shape[1], 1), 1)
    # Half a digit decides between like names: not in the precision of mixed training.
    with torch.autocast(flat.device.type, enabled=False):
        flat = flat.float() * scale
        scores = flat.new_empty(len(flat), len(weights))
        for start in range(0, len(weights), size):
            part = weights[start : start + size]
            products = flat @ part.to(flat.device).flatten(0, 1).T
            scores[:, start : start + size] = products.unflatten(1, part.shape[:2]).amax(dim=2)
        return scores


class TopClasses(NamedTuple):
    """The best classes of embeddings, best first; of equal ones the earlier first.

    Attributes:
        values: (..., k) float32 probabilities, or scores.
        ids: (..., k) int64 indices into the classifier's names; of ``background`` its first.
    """

    values: Tensor
    ids: Tensor


def top_classes(
    embeddings: Tensor,
    classifier: Classifier,
    k: int = 1,
    *,
    scale: float | Tensor = math.e,
    reduction: str = "max",
    softmax: bool = True,
    background_scale: float = 1.0,
    chunk: int = CHUNK,
) -> TopClasses:
    """Name embeddings; the scores of all classes exist for a few of them at a time.

    The defaults are those of Umar's open-vocabulary SAM.

    Args:
        embeddings: (..., D) of unit length.
        classifier: C classes.
        k: how many classes are told, at most C.
        scale: factor on the similarities.
        reduction: as for :func:`class_scores`.
        softmax: give probabilities among all rows, else scores.
        background_scale: factor on the scores of ``background`` before the softmax.
        chunk: products that are held at once.

    Raises:
        ValueError: as :func:`class_scores`.
    """
    names = classifier.names
    rows = torch.tensor([name == BACKGROUND for name in names], device=embeddings.device)
    weights = _table(classifier, embeddings.shape[-1], reduction)
    flat = embeddings.reshape(-1, weights.shape[2])
    values, ids = [], []
    for part in flat.split(max(chunk // len(names), 1)):
        scores = _scores(part, weights, scale, chunk)
        if softmax and BACKGROUND in names:
            scores = torch.where(rows, scores * background_scale, scores)
        best = _stable_top(scores, min(k, len(names)))
        told = scores.gather(1, best)
        if softmax:
            told = (told - scores.logsumexp(dim=1, keepdim=True)).exp()
        values.append(told)
        ids.append(best)
    found = torch.cat(ids) if ids else flat.new_empty(0, min(k, len(names)), dtype=torch.long)
    if BACKGROUND in names:
        found = torch.where(rows[found], names.index(BACKGROUND), found)
    shape = (*embeddings.shape[:-1], found.shape[1])
    probabilities = torch.cat(values) if values else flat.new_empty(found.shape)
    return TopClasses(probabilities.reshape(shape), found.reshape(shape))


def _stable_top(scores: Tensor, k: int) -> Tensor:
    """(M, k) columns of the highest of (M, C) scores; of equal ones the first."""
    values, columns = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    tied = (values[:, 1:] == values[:, :-1]).any(dim=1)
    if tied.any():
        # torch.topk leaves open which of equal ones it takes.
        order = scores[tied].sort(dim=1, descending=True, stable=True).indices
        columns[tied] = order[:, : columns.shape[1]]
    return columns[:, :k]
