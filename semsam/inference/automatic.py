"""Masks of everything in an image: a grid of clicks, filters, and removal of duplicates.

segment-anything's method and record keys, for decoders of any number of masks a click. Work is put
off until it cannot be avoided: masks of low predicted IoU are never resized, and of the others
only box and stability are measured; pixels are written for those that survive all filters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from semsam.modeling.postprocessing import upsample_map
from semsam.structures import PromptOutput, Prompts
from semsam.structures.photo_format import check_image

from .amg_utils import (
    OUTPUT_MODES,
    crop_boxes,
    cut_by_crop,
    cut_logits,
    drop_small_islands,
    encode_mask,
    fill_small_holes,
    mask_box,
    non_maximum_suppression,
    point_grid,
)
from .class_names import Classes, ClassNames
from .predictor import (
    ClickableModel,
    SemSamPredictor,
)

T = TypeVar("T")
R = TypeVar("R")
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class _Crop:
    """A part of the photo, and the frames through which its masks return to it.

    ``box`` is XYXY in the photo; sizes are (H, W): of the crop, of the crop as the model sees it,
    of the frame in which masks are measured and compared, of the photo. ``measured`` is the smaller
    of the first two: where the photo has more pixels than the model's input, they would add cost
    and no detail.
    """

    box: tuple[int, int, int, int]
    size: tuple[int, int]
    input_size: tuple[int, int]
    measured: tuple[int, int]
    photo_size: tuple[int, int]

    def to_photo(self, box: Box) -> Box:
        """XYXY of the measured frame -> of the photo."""
        x, y = self.size[1] / self.measured[1], self.size[0] / self.measured[0]
        left, top = self.box[:2]
        return box[0] * x + left, box[1] * y + top, box[2] * x + left, box[3] * y + top


class _LowResolution(NamedTuple):
    """(h, w) logits at the decoder's stride, and the (H, W) of the padded input they cover."""

    logits: np.ndarray
    padded_size: tuple[int, int]


@dataclass(frozen=True)
class _Candidate:
    """A mask that is still in the race.

    ``window`` selects its bounding box in the measured frame, ``bits`` are the packed pixels in it.
    Where the crop has more pixels than that frame, ``low_resolution`` is kept to write the mask at
    the photo's own resolution. ``box`` and ``point`` are in pixels of the photo.
    """

    bits: np.ndarray
    window: tuple[slice, slice]
    low_resolution: _LowResolution | None
    crop: _Crop
    box: Box
    point: tuple[float, float]
    level: int
    score: float
    stability: float
    named: dict[str, Any]

    def mask(self) -> np.ndarray:
        """(H, W) bool over the crop, in pixels of the photo."""
        if self.low_resolution is not None:
            return upsample_map(*self.low_resolution, self.crop.input_size, self.crop.size) > 0
        mask = np.zeros(self.crop.size, dtype=bool)
        inside = mask[self.window]
        inside[:] = np.unpackbits(self.bits, count=inside.size).reshape(inside.shape)
        return mask


class AutomaticMaskGenerator:
    """Finds the masks of an image without a prompt.

    Args:
        model: a clickable model, as ``SemSamPredictor`` takes it, or a predictor of one, which
            keeps the features of the last crop (the image, where there are no crops).
        points_per_side: clicks on a square grid of this many a side.
        points_per_batch: clicks decoded at once; bounds memory, does not change results.
        pred_iou_thresh: a mask's predicted IoU must exceed this; None to keep all.
        stability_score_thresh: a mask's stability must reach this; None to keep all.
        stability_score_offset: stability is the IoU of the masks cut at plus and minus this logit.
        box_nms_thresh: of masks whose boxes overlap by more than this IoU the best is kept.
        crop_n_layers: layer i runs again on 2^i x 2^i crops; 0 for the whole image only.
        crop_nms_thresh: as ``box_nms_thresh``, between crops; the smaller crop wins.
        crop_overlap_ratio: overlap of the first layer's crops, as a share of the shorter side.
        crop_n_points_downscale_factor: layer i has this ** i times fewer points a side.
        min_mask_region_area: smaller holes and islands, in pixels of the image, are removed.
        output_mode: ``"binary_mask"``, ``"uncompressed_rle"`` or ``"coco_rle"``.
        levels: granularities to keep, 1 (whole) to K (part); all if None.
        min_size: the shorter side of an image is resized to this before it enters the model; None
            for the model's own format, or the predictor's.
        classes: names, a classifier, its file or ``ClassNames``, among which each mask is named;
            for models with a ``TextClassHead``.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        model: ClickableModel | SemSamPredictor,
        points_per_side: int = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float | None = 0.88,
        stability_score_thresh: float | None = 0.92,
        stability_score_offset: float = 1.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        min_mask_region_area: int = 10,
        output_mode: str = "binary_mask",
        levels: Sequence[int] | None = None,
        min_size: int | None = None,
        classes: Classes | ClassNames | None = None,
    ) -> None:
        if output_mode not in OUTPUT_MODES:
            raise ValueError(f"output_mode is one of {OUTPUT_MODES}, not '{output_mode}'")
        if min(points_per_side, points_per_batch, crop_n_points_downscale_factor) < 1:
            raise ValueError(
                "points_per_side, points_per_batch and crop_n_points_downscale_factor are at least "
                f"1, got {points_per_side}, {points_per_batch}, {crop_n_points_downscale_factor}"
            )
        if crop_n_layers < 0:
            raise ValueError(f"crop_n_layers is 0 or more, got {crop_n_layers}")
        if levels is not None and not levels:
            raise ValueError("levels must name at least one level; None keeps all")
        if isinstance(model, SemSamPredictor):
            self.predictor = model
        else:
            self.predictor = SemSamPredictor(model, min_size=min_size)
        self.points_per_batch = points_per_batch
        self.pred_iou_thresh = pred_iou_thresh
        self.stability_score_thresh = stability_score_thresh
        self.stability_score_offset = stability_score_offset
        self.box_nms_thresh = box_nms_thresh
        self.crop_n_layers = crop_n_layers
        self.crop_nms_thresh = crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.min_mask_region_area = min_mask_region_area
        self.output_mode = output_mode
        self.levels = levels
        self.class_names = None if classes is None else self.predictor.class_names(classes)
        self.grids = [
            point_grid(max(1, points_per_side // crop_n_points_downscale_factor**layer))
            for layer in range(crop_n_layers + 1)
        ]

    def generate(self, image: np.ndarray) -> list[dict[str, Any]]:
        """Find masks.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            One dict a mask, in pixels of the image: ``segmentation`` ((H, W) bool, or a run-length
            dict), ``area``, ``bbox`` (x, y, width, height between first and last pixel, as in
            segment-anything), ``predicted_iou``, ``point_coords`` ([[x, y]]), ``stability_score``,
            ``crop_box`` (XYWH), and ``level`` (1 to K); with ``classes`` also ``class_name``,
            ``class_score``, its probability among the classes, and, of models that predict it,
            ``predicted_cosine_similarity``. ``filter_masks`` chooses among such.

        Raises:
            ValueError: if the image is not such an array, or a level is not among 1..K.
        """
        check_image(image)
        image_size = (image.shape[0], image.shape[1])
        crops = crop_boxes(image_size, self.crop_n_layers, self.crop_overlap_ratio)
        candidates = []
        for box, layer in crops:
            candidates += self._search_crop(image, box, self.grids[layer])
        if len(crops) > 1:
            scores = [1 / math.prod(c.crop.size) for c in candidates]
            candidates = _suppress(candidates, _boxes(candidates), scores, self.crop_nms_thresh)
        records = _parallel(lambda c: self._finish(c, image_size), candidates)
        if self.min_mask_region_area > 0:
            # A mask that was cleaned may equal another now; of such a pair the untouched one stays.
            boxes = [box for _, box, _ in records]
            untouched = [float(not changed) for _, _, changed in records]
            threshold = max(self.box_nms_thresh, self.crop_nms_thresh)
            records = _suppress(records, boxes, untouched, threshold)
        return [record for record, _, _ in records]

    def _search_crop(
        self, image: np.ndarray, box: tuple[int, int, int, int], grid: np.ndarray
    ) -> list[_Candidate]:
        left, top, right, bottom = box
        self.predictor.set_image(np.ascontiguousarray(image[top:bottom, left:right]))
        size, input_size = self.predictor.image_size, self.predictor.input_size
        crop = _Crop(
            box=box,
            size=size,
            input_size=input_size,
            measured=min(size, input_size, key=math.prod),
            photo_size=(image.shape[0], image.shape[1]),
        )
        found: list[_Candidate] = []
        for start in range(0, len(grid), self.points_per_batch):
            found += self._search_points(grid[start : start + self.points_per_batch], crop)
        scores = [c.score for c in found]
        return _suppress(found, _boxes(found), scores, self.box_nms_thresh)

    def _search_points(self, points: np.ndarray, crop: _Crop) -> list[_Candidate]:
        """Candidates of one batch of points, x, y in [0, 1] of the crop."""
        input_h, input_w = crop.input_size
        coords = torch.from_numpy(points * (input_w, input_h)).float()
        extent = self.predictor.photo_format.click_extent(crop.input_size)
        output = self.predictor.decode(Prompts.from_points(coords, extents=extent))
        levels = list(self.levels or range(1, len(output.level_order) + 1))
        tokens = _tokens(levels, output.level_order)

        scores = output.scores[0, :, tokens].float()
        keep = torch.ones_like(scores, dtype=torch.bool)
        if self.pred_iou_thresh is not None:
            keep = scores > self.pred_iou_thresh
        photo_points = points * (crop.size[1], crop.size[0]) + crop.box[:2]

        def candidate(kept: tuple[float, int, int, dict[str, Any]]) -> _Candidate | None:
            score, prompt, column, named = kept
            return self._measure(
                # Mask by mask, so that nothing of the batch is copied on a CPU.
                logits=output.mask_logits[0, prompt, tokens[column]].float().cpu().numpy(),
                padded_size=output.padded_size,
                crop=crop,
                point=tuple(photo_points[prompt].tolist()),
                level=levels[column],
                score=score,
                named=named,
            )

        prompts, columns = (x.tolist() for x in keep.nonzero(as_tuple=True))
        named = self._names(output, tokens, keep)
        kept = zip(scores[keep].tolist(), prompts, columns, named, strict=True)
        return [c for c in _parallel(candidate, kept) if c is not None]

    def _names(
        self, output: PromptOutput, tokens: list[int], keep: torch.Tensor
    ) -> list[dict[str, Any]]:
        """What records say of the names of the masks that (N, K) ``keep`` selects."""
        if self.class_names is None:
            return [{}] * int(keep.sum())
        text = output.text
        ids, certainty = (x[0][:, tokens][keep] for x in self.class_names(text))
        pairs = self.class_names.named(ids, certainty)
        named = [{"class_name": name, "class_score": score} for name, score in pairs]
        if text is not None and text.cosines is not None:
            cosines = text.cosines[0][:, tokens][keep].float().tolist()
            for record, cosine in zip(named, cosines, strict=True):
                record["predicted_cosine_similarity"] = cosine
        return named

    def _measure(
        self,
        logits: np.ndarray,
        padded_size: tuple[int, int],
        crop: _Crop,
        point: tuple[float, float],
        level: int,
        score: float,
        named: dict[str, Any],
    ) -> _Candidate | None:
        """A candidate, unless the mask is unstable or cut by its crop."""
        full = upsample_map(logits, padded_size, crop.input_size, crop.measured)
        mask, stability = cut_logits(full, self.stability_score_offset)
        # A NaN, the stability of an empty mask, reaches no threshold.
        least = self.stability_score_thresh
        if least is not None and not stability >= least:
            return None
        x0, y0, x1, y1 = mask_box(mask)
        box = crop.to_photo((x0, y0, x1, y1))
        if cut_by_crop(box, crop.box, crop.photo_size):
            return None
        window = (slice(y0, y1 + 1), slice(x0, x1 + 1))
        larger = None
        if crop.measured != crop.size:
            # A copy of its own, so that the batch can be freed.
            larger = _LowResolution(logits.copy(), padded_size)
        bits = np.packbits(mask[window])
        return _Candidate(bits, window, larger, crop, box, point, level, score, stability, named)

    def _finish(
        self, candidate: _Candidate, image_size: tuple[int, int]
    ) -> tuple[dict[str, Any], Box, bool]:
        """The record of a mask, its box (XYXY, last pixel included), and if it was cleaned."""
        crop = candidate.crop
        left, top, right, bottom = crop.box
        mask = np.zeros(image_size, dtype=bool)
        mask[top:bottom, left:right] = candidate.mask()
        changed = False
        if self.min_mask_region_area > 0:
            mask, filled = fill_small_holes(mask, self.min_mask_region_area)
            mask, dropped = drop_small_islands(mask, self.min_mask_region_area)
            changed = filled or dropped
        x0, y0, x1, y1 = box = mask_box(mask)
        record = {
            "segmentation": encode_mask(mask, self.output_mode),
            "area": int(np.count_nonzero(mask)),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "predicted_iou": candidate.score,
            "point_coords": [list(candidate.point)],
            "stability_score": candidate.stability,
            "crop_box": [left, top, right - left, bottom - top],
            "level": candidate.level,
            **candidate.named,
        }
        return record, box, changed


def _tokens(levels: list[int], order: Sequence[int]) -> list[int]:
    """The decoder's mask of each level; ``order`` has them from level 1 on."""
    if any(not 1 <= level <= len(order) for level in levels):
        raise ValueError(f"levels are 1 to {len(order)} for this model, got {levels}")
    return [order[level - 1] for level in levels]


def _boxes(candidates: list[_Candidate]) -> list[Box]:
    return [c.box for c in candidates]


def _suppress(items: list[T], boxes: list[Box], scores: list[float], threshold: float) -> list[T]:
    """Non-maximum suppression; the survivors come best first."""
    return [items[i] for i in non_maximum_suppression(boxes, scores, threshold)]


def _parallel(function: Callable[[Any], R], items: Iterable[Any]) -> list[R]:
    """Map over threads, as many as torch uses: OpenCV and NumPy let go of the interpreter lock."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(function, items))
