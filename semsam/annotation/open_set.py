"""Names of an open vocabulary (the engine of Semantic-Segment-Anything).

Chen, Yang and Zhang, "Semantic Segment Anything", 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from semsam.config import CfgNode, configurable
from semsam.data.run_length import RunLengthMasks
from semsam.modeling.build import resolve_device
from semsam.modeling.pretrained import read_dtype
from semsam.modeling.text.clip import load_clip

from .build import LABELER
from .captions import BlipCaptioner
from .clip import ClipScorer, top_names
from .clipseg import ClipSegDecider
from .closed_set import read_masks, vote
from .crops import LARGE, SMALL, cut, image_tensor, mask_in_patch, photo_boxes
from .noun_phrases import NounPhrases
from .records import Labels, MaskedPhoto
from .segmenters import Segmenter, load_segmenters


@dataclass
class _Region:
    """A mask on its way to a name."""

    masks: RunLengthMasks
    index: int
    box: NDArray[np.int64]
    small: Tensor
    large: Tensor
    classes: list[str] = field(default_factory=list)
    phrases: list[str] = field(default_factory=list)
    proposals: list[str] = field(default_factory=list)
    winner: int | None = None

    @property
    def area(self) -> int:
        return int(self.masks.areas[self.index])

    @property
    def candidates(self) -> list[str]:
        return list(dict.fromkeys([*self.classes, *self.phrases]))

    def mask(self) -> NDArray[np.bool_]:
        """The part of the mask in the large patch."""
        return mask_in_patch(self.masks, self.index, self.box)

    def fields(self) -> dict[str, Any]:
        """What is said of the mask."""
        if not self.proposals:
            return {"class_name": None, "class_proposals": []}
        name = self.proposals[self.winner or 0]
        found: dict[str, Any] = {"class_name": name, "class_proposals": self.proposals}
        if not self.phrases or self.winner is None:
            found["class_fallback"] = True
        return found


@LABELER.register
class OpenSetLabeler:
    """Names each mask by what a caption of its surroundings and segmenters say of it.

    The classes that segmenters see most in the mask and the noun phrases of a caption of the patch
    around it are candidates; CLIP lets the few that fit the patch best through; these compete for
    the patch's pixels in CLIPSeg, and the one with most of the mask's pixels is its name.

    Every model takes the masks of all given photos in batches. Steps, patches and thresholds are
    the original's, with three differences: photos are RGB, a patch of three rows is read as rows,
    and a mask with one candidate is named by it.

    Args:
        segmenters: each gives a mask one candidate.
        captioner: patches -> a sentence each.
        noun_phrases: sentences -> the noun phrases of each.
        scorer: fit of names and patches.
        decider: the competition for pixels.
        top_k: candidates that compete.

    Raises:
        ValueError: if there is no segmenter, which would leave masks without a candidate.
    """

    @configurable
    def __init__(
        self,
        segmenters: Sequence[Segmenter],
        captioner: BlipCaptioner,
        noun_phrases: NounPhrases,
        scorer: ClipScorer,
        decider: ClipSegDecider,
        top_k: int = 3,
    ) -> None:
        if not segmenters:
            raise ValueError("ANNOTATION.OPEN_SET.SEGMENTERS names no segmenter")
        self.segmenters = list(segmenters)
        self.captioner = captioner
        self.noun_phrases = noun_phrases
        self.scorer = scorer
        self.decider = decider
        self.top_k = top_k

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments of ``__init__`` from ``cfg.ANNOTATION.OPEN_SET`` and ``MODEL.DEVICE``.

        Raises:
            ValueError: as ``load_segmenters`` and ``read_dtype``.
            RuntimeError: if a model cannot be loaded.
        """
        node, key = cfg.ANNOTATION.OPEN_SET, "ANNOTATION.OPEN_SET"
        device = resolve_device(cfg.MODEL.DEVICE)
        size = node.BATCH_SIZE or (64 if device.type == "cuda" else 16)
        dtype = read_dtype(cfg.ANNOTATION.DTYPE, "ANNOTATION.DTYPE")
        return {
            "noun_phrases": NounPhrases(node.SPACY_MODEL),
            "segmenters": load_segmenters(node, key, str(device), node.SEGMENTER_BATCH_SIZE, dtype),
            "captioner": BlipCaptioner(
                node.CAPTIONER, device, f"{key}.CAPTIONER", node.MAX_NEW_TOKENS, size, dtype
            ),
            "scorer": ClipScorer(load_clip(node.CLIP, device, f"{key}.CLIP", dtype), size),
            "decider": ClipSegDecider(node.CLIPSEG, device, f"{key}.CLIPSEG", size, dtype),
            "top_k": node.TOP_K,
        }

    def label(self, photos: Sequence[MaskedPhoto]) -> list[Labels]:
        """Names of all masks of all photos.

        Returns:
            For each mask ``class_name`` and ``class_proposals``, best first; None and none for a
            mask without pixels. ``class_fallback`` is True, and else absent, where the name is not
            chosen as others are: the caption has no noun phrase, so that it is one of the
            segmenters' classes, or no pixel of the mask is near its box, so that it is CLIP's.

        Raises:
            ValueError: if a mask has no box, or its code is damaged or not of its photo's size;
                names the photo.
        """
        # What a name's features are to the last digit depends on those that it was encoded with:
        # the photos of one call decide, so that a run that was interrupted gives the same.
        self.scorer.forget_names()
        self.decider.forget_names()
        regions = [self._regions(photo) for photo in photos]
        seen = [[region for region in of_photo if region.area] for of_photo in regions]
        if any(seen):
            self._classify(photos, seen)
            self._describe(seen)
            self._propose(seen)
            self._decide(seen)
        return [Labels([region.fields() for region in of_photo]) for of_photo in regions]

    def _regions(self, photo: MaskedPhoto) -> list[_Region]:
        masks = read_masks(photo)
        small, large = photo_boxes(photo, SMALL), photo_boxes(photo, LARGE)
        image = image_tensor(photo.image, self.scorer.device)
        patches = zip(cut(image, small), cut(image, large), strict=True)
        return [_Region(masks, i, large[i], *pair) for i, pair in enumerate(patches)]

    def _classify(self, photos: Sequence[MaskedPhoto], regions: list[list[_Region]]) -> None:
        """The class that each segmenter sees most in each mask."""
        wanted = [i for i, of_photo in enumerate(regions) if of_photo]
        for segmenter in self.segmenters:
            maps = segmenter.segment([photos[i].image for i in wanted])
            for i, class_map in zip(wanted, maps, strict=True):
                classes = vote(class_map, regions[i][0].masks).classes
                for region in regions[i]:
                    winner = classes[region.index]
                    assert winner is not None, "the mask has pixels"
                    region.classes.append(segmenter.labels[winner])

    def _describe(self, regions: list[list[_Region]]) -> None:
        """The noun phrases of a caption of each patch."""
        every = list(chain(*regions))
        captions = self.captioner([region.large for region in every])
        for region, phrases in zip(every, self.noun_phrases(captions), strict=True):
            region.phrases = phrases

    def _propose(self, regions: list[list[_Region]]) -> None:
        """The candidates that fit each patch best."""
        features = self.scorer.image_features([region.small for region in chain(*regions)])
        parts = features.split([len(of_photo) for of_photo in regions])
        # A photo at a time: the table of all masks and all their names would grow with its square.
        for of_photo, part in zip(regions, parts, strict=True):
            if not of_photo:
                continue
            names = list(dict.fromkeys(chain(*(region.candidates for region in of_photo))))
            column = {name: i for i, name in enumerate(names)}
            logits = self.scorer.logits(part, self.scorer.text_features(names))
            for region, row in zip(of_photo, logits, strict=True):
                own = row[[column[name] for name in region.candidates]]
                region.proposals = top_names(region.candidates, own, self.top_k)

    def _decide(self, regions: list[list[_Region]]) -> None:
        """The proposal that wins most of each mask's pixels."""
        disputed = []
        for region in chain(*regions):
            if len(region.proposals) == 1:
                region.winner = 0
            else:
                disputed.append(region)
        winners = self.decider(
            [region.large for region in disputed],
            [region.proposals for region in disputed],
            lambda i: disputed[i].mask(),
        )
        for region, winner in zip(disputed, winners, strict=True):
            region.winner = winner
