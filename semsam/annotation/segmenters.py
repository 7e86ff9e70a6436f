"""Semantic and panoptic segmenters of transformers, as functions from photos to class maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d, pad

from semsam.config import CfgNode
from semsam.modeling.build import resolve_device
from semsam.modeling.pretrained import load_model, load_processor
from semsam.utils.batching import Batches

from .label_maps import model_label_map

#: Side at which Mask2Former's mask logits are turned into probabilities.
_MASK2FORMER_SIDE = 384
#: Enlarged scores that are held at once, in numbers: 128 MiB.
_SCORES_AT_ONCE = 2**25


class Segmenter:
    """A segmenter with its processor: the class of every pixel of a photo.

    SegFormer and any other model for semantic segmentation, OneFormer, Mask2Former, MaskFormer.

    Args:
        name: a folder that transformers saved, or a name on the hub.
        labels: a table of ``semsam.data.label_maps``, or "" for the model's own names.
        device: ``"cpu"``, ``"cuda"``, or ``"auto"`` for a GPU if there is one.
        batch_size: photos a forward pass, to begin with; halved where memory runs out.
        key: the configuration key that names the model, for messages.
        dtype: of the weights; ``compute_dtype`` if None.

    Attributes:
        labels: class id -> class name.

    Raises:
        RuntimeError: if the model or its processor cannot be loaded.
        ValueError: if its classes have no names, or a table is not of its classes.
    """

    def __init__(
        self,
        name: str,
        labels: str = "",
        device: str = "auto",
        batch_size: int = 4,
        key: str = "segmenter",
        dtype: torch.dtype | None = None,
    ) -> None:
        import transformers as hf

        self.device = resolve_device(device)
        config: Any = load_processor(hf.AutoConfig, name, key)
        kind = config.model_type
        loader, self._scores = _KINDS.get(kind, _LOGITS)
        self.model = load_model(getattr(hf, loader), name, key, self.device, dtype)
        self.labels = model_label_map(config, name, labels)
        self._align_corners = kind == "segformer"
        if kind == "oneformer":
            # Names of classes are for training and instances; their file is often absent.
            self._processor = load_processor(hf.OneFormerProcessor, name, key, class_info_file=None)
            self._extra = {"task_inputs": ["semantic"]}
        else:
            self._processor = load_processor(hf.AutoImageProcessor, name, key)
            self._extra = {}
        self._batches = Batches(batch_size, f"the segmenter '{name}'")

    def segment(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.integer]]:
        """Class ids of photos.

        Photos that the processor brings to one size share a forward pass; none is padded, so that
        a map does not depend on the other photos.

        Args:
            images: (H, W, 3) uint8 RGB each.

        Returns:
            (H, W) each, uint8 or, with more than 256 classes, int32.
        """
        items = [(self._preprocess(image), image.shape[:2]) for image in images]
        by_size: dict[tuple[int, ...], list[int]] = {}
        for index, (inputs, _) in enumerate(items):
            by_size.setdefault(tuple(inputs["pixel_values"].shape), []).append(index)
        maps: dict[int, NDArray[np.integer]] = {}
        for indices in by_size.values():
            found = self._batches.run(self._predict, [items[i] for i in indices], self.device)
            maps.update(zip(indices, found, strict=True))
        return [maps[index] for index in range(len(images))]

    def _preprocess(self, image: NDArray[np.uint8]) -> dict[str, Tensor]:
        """The model's inputs of one photo, each (1, ...)."""
        # As a picture: the processor would have to guess which axis of an array is colour.
        inputs = self._processor(images=Image.fromarray(image), return_tensors="pt", **self._extra)
        return {key: value for key, value in inputs.items() if isinstance(value, Tensor)}

    @torch.inference_mode()
    def _predict(
        self, items: Sequence[tuple[dict[str, Tensor], tuple[int, int]]]
    ) -> list[NDArray[np.integer]]:
        inputs = {
            key: torch.cat([one[key] for one, _ in items]).to(self.device) for key in items[0][0]
        }
        inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        scores = self._scores(self.model(**inputs))
        return [
            _best_class(one, size, self._align_corners)
            for one, (_, size) in zip(scores, items, strict=True)
        ]


def load_segmenters(
    node: CfgNode, key: str, device: str, batch_size: int, dtype: torch.dtype | None
) -> list[Segmenter]:
    """The models of ``SEGMENTERS``, each with its table of ``LABEL_MAPS``.

    Args:
        node: has both keys.
        key: the node's own name, for messages.
        device: as for ``Segmenter``.
        batch_size: as for ``Segmenter``.
        dtype: as for ``Segmenter``.

    Raises:
        ValueError: if there is none, not one label map a segmenter, or a map that does not fit.
        RuntimeError: if a model cannot be loaded.
    """
    names, maps = list(node.SEGMENTERS), list(node.LABEL_MAPS)
    if not names:
        raise ValueError(f"{key}.SEGMENTERS names no segmenter")
    if len(names) != len(maps):
        raise ValueError(
            f"{key}.LABEL_MAPS needs one entry a segmenter ('' for the model's own names): "
            f"{len(maps)} for {len(names)}"
        )
    return [
        Segmenter(name, labels, device, batch_size, f"{key}.SEGMENTERS", dtype)
        for name, labels in zip(names, maps, strict=True)
    ]


def _best_class(scores: Tensor, size: tuple[int, int], align_corners: bool) -> NDArray[np.integer]:
    """Enlarge (C, h, w) scores bilinearly; the class of the greatest at each of (H, W) pixels.

    Classes that win nowhere are not enlarged, and the others a few at a time: 150 of a photo of
    SA-1B are 2 GiB.
    """
    number = len(scores)
    scores = scores.float()
    classes = _possible_winners(scores)
    step = max(1, _SCORES_AT_ONCE // (size[0] * size[1]))
    best, winner = None, classes
    for part in classes.split(step):
        enlarged = interpolate(
            scores[None, part], size=size, mode="bilinear", align_corners=align_corners
        )
        value, index = enlarged[0].max(dim=0)
        if best is None:
            best, winner = value, part[index]
            continue
        higher = value > best
        best = torch.where(higher, value, best)
        winner = torch.where(higher, part[index], winner)
    return winner.to(torch.uint8 if number <= 256 else torch.int32).cpu().numpy()


def _possible_winners(scores: Tensor) -> Tensor:
    """Ascending ids of the classes of (C, h, w) scores that may be greatest between the cells.

    An interpolated score lies between the least and the greatest of four cells. A class whose
    greatest is everywhere below another's least wins nowhere.
    """
    if not torch.isfinite(scores).all():
        raise RuntimeError("a segmenter gave scores that are not finite")
    cells = pad(scores[None], (0, 1, 0, 1), mode="replicate")
    highest = max_pool2d(cells, 2, stride=1)[0]
    lowest = -max_pool2d(-cells, 2, stride=1)[0]
    # Interpolation rounds.
    slack = 1e-4 * scores.abs().max()
    may_win = highest >= lowest.amax(dim=0) - slack
    return may_win.flatten(1).any(dim=1).nonzero().flatten()


def _logits(outputs: Any) -> Tensor:
    return outputs.logits


def _query_scores(outputs: Any, side: int | None = None) -> Tensor:
    """(B, C, h, w): the queries' class probabilities, spread over their masks and summed."""
    masks = outputs.masks_queries_logits.float()
    if side is not None:
        masks = interpolate(masks, size=(side, side), mode="bilinear", align_corners=False)
    # The last class is "nothing".
    classes = outputs.class_queries_logits.float().softmax(dim=-1)[..., :-1]
    return torch.einsum("bqc,bqhw->bchw", classes, masks.sigmoid())


def _mask2former_scores(outputs: Any) -> Tensor:
    return _query_scores(outputs, _MASK2FORMER_SIDE)


Scores = Callable[[Any], Tensor]
#: Transformers' class, and how scores of classes are read from what it gives.
_LOGITS: tuple[str, Scores] = ("AutoModelForSemanticSegmentation", _logits)
_KINDS: dict[str, tuple[str, Scores]] = {
    "oneformer": ("OneFormerForUniversalSegmentation", _query_scores),
    "mask2former": ("Mask2FormerForUniversalSegmentation", _mask2former_scores),
    "maskformer": ("MaskFormerForInstanceSegmentation", _query_scores),
}
