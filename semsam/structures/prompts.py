"""What a user asks (prompts), what the decoder answers (output), what training expects (targets).

These three records are all that data, decoders, criteria and region heads share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

#: Width and height, in pixels of the model's input, of the box drawn around a training click.
CLICK_EXTENT = 6.0


@dataclass(frozen=True)
class Prompts:
    """Prompts of B images, N an image, padded to the longest; ``valid`` tells which are real.

    Coordinates are x, y in pixels of the model's input frame: the resized image before padding,
    (0, 0) at the top-left corner of the top-left pixel. Padding lies at the bottom and the right,
    so it does not move them.

    Attributes:
        points: (B, N, P, 2) float32.
        labels: (B, N, P) int64; 1 foreground, 0 background, -1 no point.
        extents: (B, N, 2) float32; width and height of the box that stands for a click in decoders
            that read a click as a small box (Mask-DINO).
        boxes: (B, N, 4) float32 XYXY; zeros where ``has_box`` is False.
        has_box: (B, N) bool.
        masks: (B, N, h, w) float32 logits over the padded frame, at the stride that the decoder
            gives them (SAM's earlier answer); (B, N, 0, 0) if no prompt has one.
        has_mask: (B, N) bool.
        texts: (B, N, D) float32 vectors of a text encoder, zeros where ``has_text`` is False;
            (B, N, 0) if no prompt has one.
        has_text: (B, N) bool.
        valid: (B, N) bool.
    """

    points: Tensor
    labels: Tensor
    extents: Tensor
    boxes: Tensor
    has_box: Tensor
    masks: Tensor
    has_mask: Tensor
    texts: Tensor
    has_text: Tensor
    valid: Tensor

    @staticmethod
    def from_points(
        points: Tensor,
        labels: Tensor | None = None,
        extents: Tensor | tuple[float, float] = (CLICK_EXTENT, CLICK_EXTENT),
    ) -> Prompts:
        """Clicks on one image.

        Args:
            points: (N, 2) one click a prompt, or (N, P, 2) several; x, y pixels.
            labels: (N,) or (N, P); all foreground if None.
            extents: (N, 2), or one (width, height) for all, in pixels.

        Raises:
            ValueError: if shapes do not fit together.
        """
        points = torch.as_tensor(points, dtype=torch.float32)
        if points.dim() == 2:
            points = points[:, None]
        if points.dim() != 3 or points.shape[-1] != 2:
            raise ValueError(f"points must be (N, 2) or (N, P, 2), got {tuple(points.shape)}")
        number, each = points.shape[:2]
        if labels is None:
            labels = torch.ones(number, each, dtype=torch.long, device=points.device)
        labels = torch.as_tensor(labels, dtype=torch.long, device=points.device)
        if labels.numel() != number * each:
            raise ValueError(f"{number * each} points, but labels are {tuple(labels.shape)}")
        extents = torch.as_tensor(extents, dtype=torch.float32, device=points.device)
        return Prompts(
            points=points[None],
            labels=labels.reshape(1, number, each),
            extents=extents.expand(number, 2)[None],
            boxes=points.new_zeros(1, number, 4),
            has_box=torch.zeros(1, number, dtype=torch.bool, device=points.device),
            masks=points.new_zeros(1, number, 0, 0),
            has_mask=torch.zeros(1, number, dtype=torch.bool, device=points.device),
            texts=points.new_zeros(1, number, 0),
            has_text=torch.zeros(1, number, dtype=torch.bool, device=points.device),
            valid=torch.ones(1, number, dtype=torch.bool, device=points.device),
        )

    @staticmethod
    def from_boxes(boxes: Tensor) -> Prompts:
        """Boxes on one image.

        Args:
            boxes: (N, 4) XYXY pixels.

        Raises:
            ValueError: if the shape is another, or a box has its right or bottom edge before the
                left or top one.
        """
        boxes = _check_boxes(boxes)
        return Prompts._of_nothing(len(boxes), boxes.device).with_boxes(boxes)

    @staticmethod
    def from_texts(texts: Tensor) -> Prompts:
        """Texts alone about one image, without a place.

        Args:
            texts: (N, D) vectors of a text encoder.

        Raises:
            ValueError: if the shape is another, or a vector is not finite.
        """
        texts = torch.as_tensor(texts, dtype=torch.float32)
        return Prompts._of_nothing(len(texts), texts.device).with_texts(texts)

    @staticmethod
    def _of_nothing(number: int, device: torch.device) -> Prompts:
        """Prompts of one image that do not say anything yet."""
        nowhere = torch.full((number, 1), -1, dtype=torch.long, device=device)
        return Prompts.from_points(torch.zeros(number, 1, 2, device=device), nowhere)

    def with_boxes(self, boxes: Tensor) -> Prompts:
        """The same prompts on one image, each with a box of (N, 4) besides.

        Raises:
            ValueError: as ``from_boxes``, or if the number differs.
        """
        boxes = _check_boxes(boxes)
        if len(boxes) != self.num_prompts:
            raise ValueError(f"{self.num_prompts} prompts, but {len(boxes)} boxes")
        return replace(self, boxes=boxes[None], has_box=torch.ones_like(self.has_box))

    def with_clicks(self, points: Tensor, labels: Tensor) -> Prompts:
        """The same prompts, each with one click more: (B, N, 2) x, y and (B, N) labels."""
        return replace(
            self,
            points=torch.cat([self.points, points[:, :, None].to(self.points)], dim=2),
            labels=torch.cat([self.labels, labels[:, :, None].to(self.labels)], dim=2),
        )

    def with_masks(self, masks: Tensor) -> Prompts:
        """The same prompts, each with a mask besides: (B, N, h, w) logits.

        Raises:
            ValueError: if the number differs.
        """
        if masks.shape[:2] != self.valid.shape:
            raise ValueError(f"{tuple(self.valid.shape)} prompts, but masks {tuple(masks.shape)}")
        return replace(self, masks=masks, has_mask=torch.ones_like(self.has_mask))

    def with_texts(self, texts: Tensor) -> Prompts:
        """The same prompts on one image, each with a text besides: (N, D) of a text encoder.

        Raises:
            ValueError: as ``from_texts``, or if the number differs.
        """
        texts = torch.as_tensor(texts, dtype=torch.float32)
        if texts.dim() != 2 or not texts.shape[1] or not bool(texts.isfinite().all()):
            raise ValueError(f"texts must be (N, D) finite vectors, got {tuple(texts.shape)}")
        if len(texts) != self.num_prompts:
            raise ValueError(f"{self.num_prompts} prompts, but {len(texts)} texts")
        return replace(self, texts=texts[None], has_text=torch.ones_like(self.has_text))

    @staticmethod
    def cat(parts: list[Prompts]) -> Prompts:
        """Join prompts of the same images, one after the other along N.

        Raises:
            ValueError: if texts are of encoders of different widths.
        """
        return _join(parts, 1, [p.num_prompts for p in parts])

    @staticmethod
    def collate(parts: list[Prompts]) -> Prompts:
        """Stack the prompts of several images, padded to the longest.

        Raises:
            ValueError: if the list is empty, or texts are of encoders of different widths.
        """
        if not parts:
            raise ValueError("a batch needs the prompts of at least one image")
        return _join(parts, 0, [max(p.num_prompts for p in parts)] * len(parts))

    def _pad(self, number: int, each: int, mask_size: tuple[int, int], text_dim: int) -> Prompts:
        more_n, more_p = number - self.num_prompts, each - self.points.shape[2]
        more_d = text_dim - self.texts.shape[2]
        more_h, more_w = (a - b for a, b in zip(mask_size, self.masks.shape[2:], strict=True))
        pad = torch.nn.functional.pad
        return Prompts(
            points=pad(self.points, (0, 0, 0, more_p, 0, more_n)),
            labels=pad(self.labels, (0, more_p, 0, more_n), value=-1),
            extents=pad(self.extents, (0, 0, 0, more_n)),
            boxes=pad(self.boxes, (0, 0, 0, more_n)),
            has_box=pad(self.has_box, (0, more_n)),
            masks=pad(self.masks, (0, more_w, 0, more_h, 0, more_n)),
            has_mask=pad(self.has_mask, (0, more_n)),
            texts=pad(self.texts, (0, more_d, 0, more_n)),
            has_text=pad(self.has_text, (0, more_n)),
            valid=pad(self.valid, (0, more_n)),
        )

    @property
    def num_prompts(self) -> int:
        """N, padding included."""
        return self.valid.shape[1]

    def __len__(self) -> int:
        """B, the number of images."""
        return self.valid.shape[0]

    def __getitem__(self, item: slice) -> Prompts:
        """Select images by slice."""
        return Prompts(*(getattr(self, f.name)[item] for f in fields(self)))

    def select(self, item: slice) -> Prompts:
        """Select prompts of every image by slice."""
        return Prompts(*(getattr(self, f.name)[:, item] for f in fields(self)))

    def to(self, device: torch.device | str) -> Prompts:
        """The same prompts on a device."""
        return Prompts(*(getattr(self, f.name).to(device) for f in fields(self)))


def _join(parts: list[Prompts], dim: int, numbers: list[int]) -> Prompts:
    """Concatenate along ``dim``, each padded to its number of prompts and the largest P, h, w."""
    each = max(p.points.shape[2] for p in parts)
    size = (max(p.masks.shape[2] for p in parts), max(p.masks.shape[3] for p in parts))
    widths = sorted({p.texts.shape[2] for p in parts} - {0})
    if len(widths) > 1:
        raise ValueError(f"prompts have texts of {widths} channels: use one text encoder")
    dim_d = widths[0] if widths else 0
    padded = [p._pad(n, each, size, dim_d) for p, n in zip(parts, numbers, strict=True)]
    return Prompts(*(torch.cat([getattr(p, f.name) for p in padded], dim) for f in fields(Prompts)))


def _check_boxes(boxes: Tensor) -> Tensor:
    boxes = torch.as_tensor(boxes, dtype=torch.float32)
    if boxes.dim() != 2 or boxes.shape[-1] != 4:
        raise ValueError(f"boxes must be (N, 4), got {tuple(boxes.shape)}")
    if not bool((boxes[:, 2:] >= boxes[:, :2]).all()):
        raise ValueError("boxes are x0, y0, x1, y1 with x1 >= x0 and y1 >= y0, all finite")
    return boxes


@dataclass(frozen=True)
class PromptTargets:
    """Which ground-truth masks answer each of the N prompts of one image.

    Attributes:
        seeds: (N,) int64, index of the mask from which the prompt was drawn.
        levels: (N, L) int64, indices of every mask that contains the click (all granularities,
            the seed among them unless it was cut), padded with -1.
    """

    seeds: Tensor
    levels: Tensor

    def to(self, device: torch.device | str) -> PromptTargets:
        """The same targets on a device."""
        return PromptTargets(self.seeds.to(device), self.levels.to(device))


@dataclass(frozen=True)
class TextPrediction:
    """Where a region head sees each mask in the space of a text encoder.

    Attributes:
        embeddings: (B, N, K, D) unit-norm, in the space of the names of whole things.
        parts: (B, N, K, D) unit-norm, in that of the names of parts; None if not predicted.
        cosines: (B, N, K) predicted cosine of ``embeddings`` with the vector of the true name; None
            if not predicted.
        logit_scale: scalar; a cosine times it is a logit.
    """

    embeddings: Tensor
    parts: Tensor | None
    cosines: Tensor | None
    logit_scale: Tensor

    def select_masks(self, order: list[int]) -> TextPrediction:
        """Keep some of the K masks, in the given order."""
        return replace(
            self,
            embeddings=self.embeddings[:, :, order],
            parts=None if self.parts is None else self.parts[:, :, order],
            cosines=None if self.cosines is None else self.cosines[:, :, order],
        )


@dataclass(frozen=True)
class PromptOutput:
    """What a decoder answers to B x N prompts with K masks each.

    Attributes:
        mask_logits: (B, N, K, h, w) over the padded frame, at the decoder's stride; h and w are 0
            where masks were not asked for.
        scores: (B, N, K) predicted quality (IoU) of each mask, not squashed.
        boxes: (B, N, K, 4) cx, cy, w, h in [0, 1] of the padded frame; None if not predicted.
        tokens: (B, N, T, C) every output token of a prompt: first those of the K masks, then the
            further ones of the region heads.
        valid: (B, N) bool, from the prompts.
        padded_size: (H, W) in pixels of the padded frame.
        levels: which of the K masks answer a prompt that may mean several things, from level 1 (the
            whole) on; empty: all, in their order.
        single: which of them answers a prompt that means one; None: the one with the best score.
        answering: (B, N, K) bool, which masks answer a prompt of its kind; None: all.
        context: image features as the decoder leaves them, for region heads.
        text: what each mask is, from a region head; None if there is none.
        aux: outputs of earlier layers, first layer first; empty at inference.
    """

    mask_logits: Tensor
    scores: Tensor
    boxes: Tensor | None
    tokens: Tensor
    valid: Tensor
    padded_size: tuple[int, int]
    levels: tuple[int, ...] = ()
    single: int | None = None
    answering: Tensor | None = None
    context: dict[str, Any] = field(default_factory=dict)
    text: TextPrediction | None = None
    aux: list[PromptOutput] = field(default_factory=list)

    @property
    def num_masks(self) -> int:
        """K."""
        return self.scores.shape[2]

    @property
    def level_order(self) -> tuple[int, ...]:
        """The mask of level 1, 2, ..."""
        return self.levels or tuple(range(self.num_masks))

    def best_masks(self) -> Tensor:
        """(B, N) index of the mask with the best score among those that answer the prompt."""
        scores = self.scores
        if self.answering is not None:
            scores = scores.masked_fill(~self.answering, -float("inf"))
        return scores.argmax(dim=2)

    def select_masks(self, order: Sequence[int]) -> PromptOutput:
        """Keep some of the K masks, in the given order; the heads' tokens and ``aux`` are dropped.

        Raises:
            ValueError: if an index is not below K.
        """
        order = list(order)
        if any(not 0 <= k < self.num_masks for k in order):
            raise ValueError(f"mask indices {order} do not fit a decoder of {self.num_masks} masks")
        return replace(
            self,
            mask_logits=self.mask_logits[:, :, order],
            scores=self.scores[:, :, order],
            boxes=None if self.boxes is None else self.boxes[:, :, order],
            tokens=self.tokens[:, :, order],
            levels=(),
            single=None,
            answering=None if self.answering is None else self.answering[:, :, order],
            text=None if self.text is None else self.text.select_masks(order),
            aux=[],
        )
