"""A photo with masks, as labellers see it, and what they say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

#: A result is called NAME + this; such files are never read as masks to be named.
RESULT_SUFFIX = "_semantic.json"
#: What a folder of results was made with.
MANIFEST_NAME = "manifest.json"


@dataclass(frozen=True)
class MaskedPhoto:
    """A photo and its masks.

    Masks stay run-length codes until one is needed: a photo of SA-1B has some 100 of 3 MB each.

    Attributes:
        name: what messages and files call it.
        image: (H, W, 3) uint8 RGB.
        annotations: N of SA-1B's dicts; ``segmentation`` (a COCO run-length code of the photo's
            size; what is found by a detector has none) and ``bbox`` (x, y, width, height in pixels)
            are read here, all others kept.
        fields: what its file says beside the annotations (SA-1B: ``image``); kept.
    """

    name: str
    image: NDArray[np.uint8]
    annotations: Sequence[dict[str, Any]]
    fields: dict[str, Any] = field(default_factory=dict)

    def mask(self, index: int) -> NDArray[np.bool_]:
        """(H, W) bool.

        Raises:
            ValueError: if there is none, or the code is not of the photo's size.
        """
        if "segmentation" not in self.annotations[index]:
            raise ValueError(f"{self.name}: annotation {index} is a box without a mask")
        code = self.annotations[index]["segmentation"]
        if tuple(code["size"]) != self.image.shape[:2]:
            raise ValueError(
                f"{self.name}: mask {index} is of {tuple(code['size'])}, the photo of "
                f"{self.image.shape[:2]}"
            )
        return coco_mask.decode(code).astype(bool)


@dataclass(frozen=True)
class Labels:
    """What a labeller says of one photo.

    Attributes:
        regions: N dicts of fields to be added to the N annotations; ``class_name`` (str, or None
            where nothing can be said) and ``class_proposals`` (list of str, best first) of those
            that name.
        photo: fields that stand beside ``annotations``.
    """

    regions: list[dict[str, Any]]
    photo: dict[str, Any] = field(default_factory=dict)
