"""Open-vocabulary detectors of transformers behind one face: phrases in, boxes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import batched_nms, box_convert, clip_boxes_to_image

from semsam.modeling.pretrained import load_model, load_processor
from semsam.utils.batching import Batches

from .crops import image_tensor

#: Smaller boxes, in pixels a side, are none.
_MIN_SIDE = 1.0


@dataclass(frozen=True)
class Detection:
    """A box of an object.

    Attributes:
        box: x0, y0, x1, y1 in pixels of the photo.
        score: in [0, 1].
        phrase: index of the phrase that it answers.
    """

    box: tuple[float, float, float, float]
    score: float
    phrase: int


class _Job(NamedTuple):
    """Some phrases that are looked for in a photo at once."""

    image: Tensor
    phrases: list[str]


class _Family(Protocol):
    """How a family of detectors takes phrases and says where they are."""

    def split(self, phrases: Sequence[str]) -> list[list[int]]:
        """Indices of the phrases that one call takes together."""

    def __call__(self, jobs: Sequence[_Job]) -> list[tuple[Tensor, Tensor]]:
        """For each job (Q, P) float32 scores of its phrases, and (Q, 4) XYXY boxes in pixels."""


class ZeroShotDetector:
    """Finds what phrases name: Grounding DINO, MM Grounding DINO, OWL-ViT or OWLv2.

    A box answers the phrase that scores highest in it. Of boxes of one phrase that overlap the best
    one stays.

    Args:
        name: a folder, or a name on the hub.
        device: where it runs.
        key: the configuration key that names it, for messages.
        threshold: boxes that score this or less are dropped. A phrase's score is the mean of its
            tokens' in the DINO family.
        nms_threshold: IoU above which two boxes of one phrase are the same.
        max_boxes: of a photo, the best ones.
        batch_size: photos of one size that go through it at once.
        dtype: of the weights; ``compute_dtype`` if None.

    Raises:
        RuntimeError: if it cannot be loaded.
        ValueError: if it is a model of another kind, or a number is out of range.
    """

    def __init__(
        self,
        name: str,
        device: torch.device,
        key: str = "name",
        threshold: float = 0.25,
        nms_threshold: float = 0.7,
        max_boxes: int = 100,
        batch_size: int = 4,
        dtype: torch.dtype | None = None,
    ) -> None:
        from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

        if not (0 <= threshold <= 1 and 0 <= nms_threshold <= 1 and max_boxes > 0):
            raise ValueError(
                "a threshold and an IoU are in [0, 1] and the number of boxes is positive, got "
                f"{threshold}, {nms_threshold}, {max_boxes}"
            )
        model = load_model(AutoModelForZeroShotObjectDetection, name, key, device, dtype)
        kind = model.config.model_type
        if kind not in _FAMILIES:
            raise ValueError(f"{key}: '{name}' is of type '{kind}', not {', '.join(_FAMILIES)}")
        processor = load_processor(AutoProcessor, name, key)
        self.family: _Family = _FAMILIES[kind](model, processor)
        self._device = device
        self._threshold = threshold
        self._nms_threshold = nms_threshold
        self._max_boxes = max_boxes
        self._batches = Batches(batch_size, "the detector")

    def __call__(
        self, images: Sequence[NDArray[np.uint8]], phrases: Sequence[Sequence[str]]
    ) -> list[list[Detection]]:
        """Boxes in some photos, which go through the model together.

        Args:
            images: N of (H, W, 3) uint8 RGB.
            phrases: for each photo what is looked for in it; perhaps nothing.

        Returns:
            For each photo its boxes inside the photo, the best first.
        """
        jobs, owners = [], []
        for number, (image, its_phrases) in enumerate(zip(images, phrases, strict=True)):
            pixels = image_tensor(image, torch.device("cpu"))
            for indices in self.family.split(its_phrases) if its_phrases else []:
                jobs.append(_Job(pixels, [its_phrases[index] for index in indices]))
                owners.append((number, indices))
        found = self._run(jobs)
        parts: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in images]
        for (number, indices), (boxes, scores, rows) in zip(owners, found, strict=True):
            parts[number].append((boxes, scores, torch.tensor(indices)[rows]))
        return [self._merge(its_parts) for its_parts in parts]

    def _run(self, jobs: Sequence[_Job]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """As ``_detect``, in batches of photos of one size: what is padded is seen otherwise."""
        sizes: dict[torch.Size, list[int]] = {}
        for number, job in enumerate(jobs):
            sizes.setdefault(job.image.shape, []).append(number)
        found: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        for numbers in sizes.values():
            group = [jobs[number] for number in numbers]
            results = self._batches.run(self._detect, group, self._device)
            found.update(zip(numbers, results, strict=True))
        return [found[number] for number in range(len(jobs))]

    @torch.inference_mode()
    def _detect(self, jobs: Sequence[_Job]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Of each job boxes above the threshold, their scores and the phrases' positions."""
        results = []
        for job, (scores, boxes) in zip(jobs, self.family(jobs), strict=True):
            best, rows = scores.max(dim=1)
            boxes = clip_boxes_to_image(boxes, (job.image.shape[1], job.image.shape[2]))
            sides = boxes[:, 2:] - boxes[:, :2]
            keep = (best > self._threshold) & (sides >= _MIN_SIDE).all(dim=1)
            results.append((boxes[keep].cpu(), best[keep].cpu(), rows[keep].cpu()))
        return results

    def _merge(self, parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> list[Detection]:
        if not parts:
            return []
        boxes, scores, phrases = (torch.cat(columns) for columns in zip(*parts, strict=True))
        kept = batched_nms(boxes, scores, phrases, self._nms_threshold)[: self._max_boxes]
        return [
            Detection(tuple(box), score, phrase)
            for box, score, phrase in zip(
                boxes[kept].tolist(), scores[kept].tolist(), phrases[kept].tolist(), strict=True
            )
        ]


class _SentenceFamily:
    """Grounding DINO: phrases are one text, ``a dog. a traffic light.``, of limited length."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model
        self._processor = processor
        config = model.config
        self._limit = min(config.max_text_len, config.text_config.max_position_embeddings)

    def split(self, phrases: Sequence[str]) -> list[list[int]]:
        """As ``_Family``: as many as the text's limit allows."""
        ids = self._processor.tokenizer(
            [_as_sentence(phrase) for phrase in phrases], add_special_tokens=False
        )["input_ids"]
        groups: list[list[int]] = []
        room = 0
        for index, tokens in enumerate(ids):
            if len(tokens) > room:
                groups.append([])
                # One token begins the text, one ends it.
                room = self._limit - 2
            groups[-1].append(index)
            room -= len(tokens)
        return groups

    def __call__(self, jobs: Sequence[_Job]) -> list[tuple[Tensor, Tensor]]:
        """As ``_Family``."""
        sentences = [[_as_sentence(phrase) for phrase in job.phrases] for job in jobs]
        text = self._processor.tokenizer(
            [" ".join(its_sentences) for its_sentences in sentences],
            padding=True,
            truncation=True,
            max_length=self._limit,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        offsets = text.pop("offset_mapping")
        images = _pixels(self._processor, jobs)
        output = self.model(
            pixel_values=images["pixel_values"].to(self.model.device, self.model.dtype),
            pixel_mask=images["pixel_mask"].to(self.model.device),
            **text.to(self.model.device),
        )
        tokens = output.logits.float().sigmoid()
        results = []
        for row, (job, its_sentences) in enumerate(zip(jobs, sentences, strict=True)):
            spans = _spans(its_sentences, offsets[row]).to(tokens.device)
            scores = tokens[row, :, : len(spans)] @ spans / spans.sum(dim=0).clamp(min=1)
            height, width = job.image.shape[1:]
            results.append((scores, _to_pixels(output.pred_boxes[row], width, height)))
        return results


class _ListFamily:
    """OWL: each phrase is a text of its own."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model
        self._processor = processor
        self._limit = model.config.text_config.max_position_embeddings
        # OWLv2 sees the photo in the corner of a square, OWL-ViT stretched to one.
        self._is_padded = model.config.model_type == "owlv2"

    def split(self, phrases: Sequence[str]) -> list[list[int]]:
        """As ``_Family``: all of them."""
        return [list(range(len(phrases)))]

    def __call__(self, jobs: Sequence[_Job]) -> list[tuple[Tensor, Tensor]]:
        """As ``_Family``."""
        most = max(len(job.phrases) for job in jobs)
        texts = [
            text
            for job in jobs
            for text in [*(f"a photo of a {p}" for p in job.phrases), *[""] * most][:most]
        ]
        text = self._processor.tokenizer(
            texts,
            padding="max_length",
            truncation=True,
            max_length=self._limit,
            return_tensors="pt",
        ).to(self.model.device)
        pixels = _pixels(self._processor, jobs)["pixel_values"]
        output = self.model(
            input_ids=text["input_ids"],
            attention_mask=text["attention_mask"],
            pixel_values=pixels.to(self.model.device, self.model.dtype),
        )
        results = []
        for row, job in enumerate(jobs):
            height, width = job.image.shape[1:]
            if self._is_padded:
                height = width = max(height, width)
            scores = output.logits[row, :, : len(job.phrases)].float().sigmoid()
            results.append((scores, _to_pixels(output.pred_boxes[row], width, height)))
        return results


_FAMILIES: dict[str, type[_SentenceFamily] | type[_ListFamily]] = {
    "grounding-dino": _SentenceFamily,
    "mm-grounding-dino": _SentenceFamily,
    "owlvit": _ListFamily,
    "owlv2": _ListFamily,
}


def _as_sentence(phrase: str) -> str:
    """Lower case, and no mark but the last that ends a phrase."""
    return f"{' '.join(phrase.lower().replace('.', ' ').replace('?', ' ').split())}."


def _spans(sentences: Sequence[str], offsets: Tensor) -> Tensor:
    """(T, P) float32: 1 where a token is one of a phrase; (T, 2) offsets of tokens in letters."""
    ends = np.cumsum([len(sentence) + 1 for sentence in sentences]).tolist()
    columns = [
        # Without the full stop; special tokens are empty.
        (offsets[:, 0] >= end - len(sentence) - 1)
        & (offsets[:, 1] <= end - 2)
        & (offsets[:, 1] > offsets[:, 0])
        for sentence, end in zip(sentences, ends, strict=True)
    ]
    return torch.stack(columns, dim=1).float()


def _pixels(processor: Any, jobs: Sequence[_Job]) -> Any:
    images = [job.image for job in jobs]
    return processor.image_processor(
        images=images, input_data_format="channels_first", return_tensors="pt"
    )


def _to_pixels(boxes: Tensor, width: int, height: int) -> Tensor:
    """(Q, 4) centres and sizes in [0, 1] -> XYXY pixels, float32."""
    corners = box_convert(boxes.float(), "cxcywh", "xyxy")
    return corners * corners.new_tensor([width, height, width, height])
