"""How an image is flipped, resized, cropped and padded: decided once, applied to all that it has.

An augmentation looks at the image's size and draws its numbers; the result is a Geometry. The same
Geometry then moves the image, the masks and points, each in the cheapest exact way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from semsam.config import CfgNode
from semsam.data.run_length import IntArray, RunLengthMasks

#: What the padding of an image holds.
IMAGE_PADDING = 128
#: Boxes no wider or higher than this, in pixels, have no area.
MIN_SIDE = 1e-5
#: Jitters drawn for an image until one leaves something to learn; a crop without any is no fault of
#: the data.
MAX_DRAWS = 10


class UniformDraws(Protocol):
    """What augmentations ask of a random generator; ``numpy.random.Generator`` has it."""

    def uniform(self, low: float, high: float) -> float:
        """A number between low and high."""


@dataclass(frozen=True)
class Geometry:
    """A flip, then a resize, then a crop, then padding at the bottom and the right.

    Every size is (height, width) in pixels.

    Attributes:
        source: of the image that comes in.
        resized: of the whole image after the resize.
        output: of the image that goes out.
        flip: mirror left and right first.
        offset: (y, x) of the output's top-left corner in the resized image.
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    output: tuple[int, int]
    flip: bool = False
    offset: tuple[int, int] = (0, 0)

    @property
    def content(self) -> tuple[int, int]:
        """(height, width) of the part of the output that is not padding."""
        height = min(self.output[0], self.resized[0] - self.offset[0])
        return height, min(self.output[1], self.resized[1] - self.offset[1])

    def unflipped(self) -> Geometry:
        """The same resize, crop and padding without the flip."""
        return replace(self, flip=False)

    def apply_image(
        self, image: Image.Image, padding: int | Sequence[int] = IMAGE_PADDING
    ) -> NDArray[np.uint8]:
        """Transform an RGB image with PIL's bilinear filter.

        Args:
            image: of the source size, or a smaller rendering of the same picture.
            padding: grey level or RGB colour of what is padded.

        Returns:
            (H, W, 3) of the output size.
        """
        if self.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        height, width = self.resized
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        (top, left), (inner_height, inner_width) = self.offset, self.content
        pixels = np.asarray(image)[top : top + inner_height, left : left + inner_width]
        if self.content == self.output:
            return np.ascontiguousarray(pixels)
        padded = np.full((*self.output, 3), padding, dtype=np.uint8)
        padded[:inner_height, :inner_width] = pixels
        return padded

    def apply_masks(self, masks: RunLengthMasks) -> RunLengthMasks:
        """Transform masks as PIL's nearest-neighbour filter would; padding is background."""
        if masks.size != self.source:
            raise ValueError(f"masks of {masks.size} do not fit an image of {self.source}")
        (top, left), (inner_height, inner_width) = self.offset, self.content
        rows = nearest_pixels(self.source[0], self.resized[0])[top : top + inner_height]
        columns = nearest_pixels(self.source[1], self.resized[1])[left : left + inner_width]
        return (masks.flip() if self.flip else masks).resample(rows, columns, self.output)

    def apply_labels(self, labels: NDArray[np.integer], padding: int) -> NDArray[np.integer]:
        """Transform an (H, W) label map as PIL's nearest-neighbour filter would.

        Args:
            labels: of the source size.
            padding: label of what is padded; the map's type must hold it.
        """
        if labels.shape != self.source:
            raise ValueError(f"labels of {labels.shape} do not fit an image of {self.source}")
        (top, left), (inner_height, inner_width) = self.offset, self.content
        rows = nearest_pixels(self.source[0], self.resized[0])[top : top + inner_height]
        columns = nearest_pixels(self.source[1], self.resized[1])[left : left + inner_width]
        padded = np.full(self.output, padding, dtype=labels.dtype)
        flipped = labels[:, ::-1] if self.flip else labels
        padded[:inner_height, :inner_width] = flipped[np.ix_(rows, columns)]
        return padded

    def apply_points(self, points: NDArray[np.floating]) -> NDArray[np.float32]:
        """Move (..., 2) x, y in pixels; they may leave the output."""
        points = np.array(points, dtype=np.float64)
        if self.flip:
            points[..., 0] = self.source[1] - points[..., 0]
        scale = np.array([self.resized[1] / self.source[1], self.resized[0] / self.source[0]])
        return (points * scale - np.array(self.offset[::-1])).astype(np.float32)

    def apply_boxes(self, boxes: NDArray[np.floating]) -> NDArray[np.float32]:
        """Move (N, 4) XYXY boxes in pixels; they are cut at the edges of the output's content.

        A box that leaves the output comes back without area.
        """
        corners = self.apply_points(np.asarray(boxes).reshape(-1, 2, 2))
        limits = np.array(self.content[::-1], dtype=np.float32)
        low, high = corners.min(axis=1), corners.max(axis=1)
        return np.hstack([np.clip(low, 0, limits), np.clip(high, 0, limits)])


def have_area(boxes: NDArray[Any]) -> NDArray[np.bool_]:
    """(N,) whether anything is left of (N, 4) XYXY boxes that were moved."""
    return np.all(boxes[:, 2:] - boxes[:, :2] > MIN_SIDE, axis=1)


@lru_cache(maxsize=64)
def nearest_pixels(source: int, target: int) -> IntArray:
    """The one of ``source`` pixels that PIL's nearest filter takes for each of ``target``."""
    ruler = Image.fromarray(np.arange(source, dtype=np.int32)[None])
    resized = ruler.resize((target, 1), Image.Resampling.NEAREST)
    return np.asarray(resized)[0].astype(np.int64)


@dataclass(frozen=True)
class LargeScaleJitter:
    """Flip at random, scale to about a square, crop what is too large and pad what is too small.

    Attributes:
        side: height and width of the output, in pixels.
        min_scale: least size of the resized image, relative to one that just fits the square.
        max_scale: greatest size.
        flip_prob: how often the image is mirrored.
    """

    side: int
    min_scale: float
    max_scale: float
    flip_prob: float

    def __call__(self, size: tuple[int, int], rng: UniformDraws) -> Geometry:
        """Draw flip, scale and crop, in this order, for an image of (height, width)."""
        flip = rng.uniform(0.0, 1.0) < self.flip_prob
        fit = self.side * rng.uniform(self.min_scale, self.max_scale) / max(size)
        height, width = (max(1, round(length * fit)) for length in size)
        position = rng.uniform(0.0, 1.0)
        top, left = (round(max(length - self.side, 0) * position) for length in (height, width))
        return Geometry(size, (height, width), (self.side, self.side), flip, (top, left))


@dataclass(frozen=True)
class ResizeShortestEdge:
    """Resize to a given shortest side unless the longest would pass a limit.

    Attributes:
        short: the shortest side, in pixels.
        longest: the limit of the longest.
    """

    short: int
    longest: int

    def __call__(self, size: tuple[int, int]) -> Geometry:
        """The resize of an image of (height, width)."""
        scale = self.short / min(size)
        resized = [self.short if length == min(size) else scale * length for length in size]
        if max(resized) > self.longest:
            shrink = self.longest / max(resized)
            resized = [length * shrink for length in resized]
        height, width = (max(1, int(length + 0.5)) for length in resized)
        return Geometry(size, (height, width), (height, width))


def recolor(image: Image.Image, share: float, rng: UniformDraws) -> Image.Image:
    """Multiply brightness, contrast and saturation, in this order, by random factors.

    Args:
        image: RGB.
        share: factors are between 1 less this and 1 plus this; 0 draws nothing.
        rng: source of the factors.
    """
    if not share:
        return image
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(rng.uniform(1 - share, 1 + share))
    return image


def read_geometry(node: CfgNode) -> dict[str, Any]:
    """``jitter`` of training and ``resize`` of evaluation, as the keys of INPUT say."""
    return {
        "jitter": LargeScaleJitter(node.IMAGE_SIZE, node.MIN_SCALE, node.MAX_SCALE, node.FLIP_PROB),
        "resize": ResizeShortestEdge(node.MIN_SIZE_TEST, node.MAX_SIZE_TEST),
    }
