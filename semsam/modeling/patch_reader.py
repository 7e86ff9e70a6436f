"""Patches as models of transformers read them: resized, cropped and normalised together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..layers.resampling import RADII, Axis, resize_together

#: Times the kept pixels that torch's kernel may make of a patch.
_SPARE = 4
#: The classes of transformers whose steps are followed here, and these steps.
_BACKENDS = ("TorchvisionBackend", "BaseImageProcessorFast")
_STEPS = ("_preprocess", "resize", "center_crop", "rescale_and_normalize")
_LAST_STEP = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")


class PatchReader:
    """Reads patches as transformers' image processor does on a CPU, to the bit, on any device.

    On a GPU all patches are resized by two products of sparse matrices, and what the crop would
    drop is not computed. On a CPU torch's kernel, a patch at a time, takes less than half as long,
    unless the crop drops most of what it makes.

    Args:
        processor: transformers' image processor, of its torchvision backend.

    Raises:
        ValueError: if it does something else with an image; names it and the setting.
    """

    def __init__(self, processor: Any) -> None:
        from torchvision.transforms.v2.functional import InterpolationMode, resize

        _check(processor)
        size = dict(processor.size)
        self._size = size
        crop = dict(processor.crop_size) if processor.do_center_crop else size
        self._shape = (crop["height"], crop["width"])
        self._radius = RADII[processor.resample]
        modes = {2: InterpolationMode.BILINEAR, 3: InterpolationMode.BICUBIC}
        self._resize = partial(resize, interpolation=modes[processor.resample], antialias=True)
        settings = {name: getattr(processor, name) for name in _LAST_STEP}
        self._normalize = partial(processor.rescale_and_normalize, **settings)

    def __call__(self, patches: Sequence[Tensor]) -> Tensor:
        """(N, 3, H, W) float32 pixel values.

        Args:
            patches: N of (3, h, w) uint8, of any sizes, on one device; at least one.
        """
        given = np.array([patch.shape[1:] for patch in patches])
        resized = np.array([self._resized_size(h, w) for h, w in given.tolist()])
        y, x = (Axis(given[:, i], resized[:, i], self._shape[i], self._radius) for i in range(2))
        device = patches[0].device
        pixels = torch.zeros((len(patches), 3, *self._shape), dtype=torch.uint8, device=device)
        together = np.full(len(patches), device.type != "cpu")
        together |= resized.prod(axis=1) > _SPARE * np.prod(self._shape)
        if (chosen := np.flatnonzero(together)).size:
            found = resize_together(
                [patches[i] for i in chosen.tolist()], y.take(chosen), x.take(chosen)
            )
            pixels[torch.from_numpy(chosen).to(device)] = found
        for i in np.flatnonzero(~together).tolist():
            image = self._resize(_channels_last(patches[i]), resized[i].tolist())
            image = image[:, y.begin[i] : y.end[i], x.begin[i] : x.end[i]]
            top, left = y.margin[i], x.margin[i]
            pixels[i, :, top : top + image.shape[1], left : left + image.shape[2]] = image
        return self._normalize(pixels).float()

    def _resized_size(self, height: int, width: int) -> tuple[int, int]:
        if "shortest_edge" not in self._size:
            return self._size["height"], self._size["width"]
        edge = self._size["shortest_edge"]
        if width <= height:
            return int(edge * height / width), edge
        return edge, int(edge * width / height)


def _channels_last(patch: Tensor) -> Tensor:
    """The same, with memory in the order that torch's kernel takes without a copy."""
    return patch.permute(1, 2, 0).contiguous().permute(2, 0, 1)


def _check(processor: Any) -> None:
    """The processor does with an image what is done here, and nothing else."""
    name = type(processor).__name__
    for step in _STEPS:
        owner = getattr(getattr(processor, step, None), "__qualname__", "").partition(".")[0]
        if owner not in _BACKENDS:
            raise ValueError(
                f"{name}: {step} is not that of {_BACKENDS[0]}, the only way in which patches are "
                "read"
            )
    sizes = sorted(dict(processor.size))
    settings = {
        "do_resize": processor.do_resize,
        "do_pad": not processor.do_pad,
        "resample": processor.resample in RADII,
        "size": sizes in (["height", "width"], ["shortest_edge"]),
        "do_center_crop": processor.do_center_crop or sizes == ["height", "width"],
    }
    for setting, supported in settings.items():
        if not supported:
            raise ValueError(
                f"{name}: {setting} is {getattr(processor, setting)}. Patches are resized, "
                "bilinearly or bicubically, to a height and a width, or to a shortest_edge and "
                "then cropped; they are not padded"
            )
