"""Antialiased resizing as torch does it with images of 8 bits, as products of sparse matrices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Pixels are counted from the middle of their range, which halves the sums that must be exact.
_MIDDLE = 128
#: Pixels that a kernel reaches, by PIL's number of the resampling: bilinear and bicubic.
RADII = {2: 1, 3: 2}
#: Numbers that a product, or what is between the two, has at most, unless one image needs more.
_LIMIT = 2**24
#: A float32 holds whole numbers up to this.
_EXACT = 2**24


def resize_together(images: Sequence[Tensor], y: Axis, x: Axis) -> Tensor:
    """Resize and crop images as torch does one on a CPU, to the bit.

    Columns first, then rows, each rounded to 8 bits; what the crop would drop is not computed.

    Args:
        images: N of (3, h, w) uint8, of any sizes, on one device; at least one.
        y: their heights.
        x: their widths.

    Returns:
        (N, 3, H, W) uint8.
    """
    windows = [
        image[:, top:bottom, left:right]
        for image, top, bottom, left, right in zip(images, *y.window(), *x.window(), strict=True)
    ]
    heights = np.array([window.shape[1] for window in windows])
    shape = (len(images), 3, y.kept, x.kept)
    found = torch.empty(shape, dtype=torch.uint8, device=images[0].device)
    for group in _groups(heights.clip(y.kept), _LIMIT // (3 * x.kept)):
        between = _resize_x([windows[i] for i in group], x.take(group))
        pixels = _resize_y(between, y.take(group))
        found[torch.from_numpy(group).to(found.device)] = pixels.to(torch.uint8)
    return found


@dataclass(frozen=True)
class _Matrix:
    """Weights of sums of a table's rows.

    Attributes:
        rows: (T,) rows of the table that are added, a sum's after another's.
        weights: (T,) their weights.
        begins: (M,) where in these each sum begins.
        bias: (M, 1) what is added to each.
    """

    rows: Tensor
    weights: Tensor
    begins: Tensor
    bias: Tensor

    def product(self, table: Tensor) -> Tensor:
        """(M, D) float32 whole numbers from 0 to 255 of (R, D) ones less ``_MIDDLE``."""
        # No matmul, which autocast and TF32 would round.
        sums = embedding_bag(
            self.rows,
            table.to(self.weights.dtype),
            self.begins,
            mode="sum",
            per_sample_weights=self.weights,
        )
        return sums.add_(self.bias).floor_().clamp_(0, 255).float()


@dataclass(frozen=True)
class Axis:
    """One axis along which N images are resized and then cropped about their middle.

    Attributes:
        given: (N,) pixels of the images.
        resized: (N,) pixels that they are resized to.
        kept: those that the crop keeps; zeros are added where it is larger.
        radius: of the kernel; one of ``RADII``.
    """

    given: Integers
    resized: Integers
    kept: int
    radius: int

    @cached_property
    def begin(self) -> Integers:
        """(N,) resized pixels that are the first to be kept."""
        return np.maximum(self.resized - self.kept, 0) // 2

    @cached_property
    def end(self) -> Integers:
        """(N,) ends of the resized pixels that are kept."""
        return np.minimum(self.begin + self.kept, self.resized)

    @cached_property
    def margin(self) -> Integers:
        """(N,) zeros before them."""
        return np.maximum(self.kept - self.resized, 0) // 2

    def take(self, chosen: Integers) -> Axis:
        """Some of the images."""
        return replace(self, given=self.given[chosen], resized=self.resized[chosen])

    def window(self) -> tuple[Integers, Integers]:
        """(N,) first given pixels that the kept ones are made of, and (N,) ends of them."""
        every = np.arange(len(self.given))
        return self._reach(every, self.begin)[0], self._reach(every, self.end - 1)[1]

    def matrix(self, begins: Integers, device: torch.device) -> _Matrix:
        """What makes the N * ``kept`` pixels, an image's after another's, of a table's rows.

        The weights, and their rounding to 16 bits, are those of torch's
        ``_upsample_bilinear2d_aa`` and ``_upsample_bicubic2d_aa`` for uint8 (and Pillow-SIMD's).

        Args:
            begins: (N,) rows of the table that have the first pixels of the images' windows.
            device: the table's.
        """
        scale = self.given / self.resized
        # An image's largest weight sets the precision. Of one that grows it is at the border and
        # from 1 to 2; for one that shrinks all pixels are asked, those that are dropped too.
        grows = scale <= 1
        start, stop = np.where(grows, self.begin, 0), np.where(grows, self.end, self.resized)
        image = np.repeat(np.arange(len(scale)), stop - start)
        pixel = _ranges(start, stop - start)
        source, ends, centre = self._reach(image, pixel)
        reach = ends - source
        owner = np.repeat(np.arange(len(pixel)), reach)
        row = _ranges(source, reach)
        distance = (row - centre[owner] + 0.5) * (1 / np.maximum(scale, 1))[image[owner]]
        weight = self._kernel(np.abs(distance))
        weight /= np.bincount(owner, weight)[owner]
        terms = np.bincount(image, reach).astype(np.int64)
        largest = np.maximum.reduceat(weight, np.cumsum(terms) - terms)
        unit = _unit(np.where(grows, 1, largest))
        weight = np.trunc(weight * unit[image[owner]] + np.copysign(0.5, weight))

        kept = (pixel >= self.begin[image]) & (pixel < self.end[image])
        row = (row + (begins - self.window()[0])[image[owner]])[kept[owner]]
        weight = weight[kept[owner]]
        place = pixel + (self.margin - self.begin)[image]
        number = np.zeros((len(scale), self.kept), dtype=np.int64)
        number[image[kept], place[kept]] = reach[kept]
        return _sparse_matrix(row, weight, number.ravel(), np.repeat(unit, self.kept), device)

    def _reach(self, image: Integers, pixel: Integers) -> tuple[Integers, Integers, Floats]:
        """First given pixels that resized ones are made of, ends of them, and their middle."""
        scale = (self.given / self.resized)[image]
        support = self.radius * np.maximum(scale, 1)
        centre = scale * (pixel + 0.5)
        start = (centre - support + 0.5).astype(np.int64).clip(0)
        stop = np.minimum((centre + support + 0.5).astype(np.int64), self.given[image])
        return start, np.minimum(stop, start + 2 * np.ceil(support).astype(np.int64) + 1), centre

    def _kernel(self, distance: Floats) -> Floats:
        """A triangle, or Keys' cubic with a = -1/2."""
        if self.radius == 1:
            return np.maximum(1 - distance, 0)
        near = (1.5 * distance - 2.5) * distance * distance + 1
        far = (((distance - 5) * distance + 8) * distance - 4) * -0.5
        return np.where(distance < 1, near, np.where(distance < 2, far, 0))


def _sparse_matrix(
    rows: Integers, weights: Floats, number: Integers, units: Floats, device: torch.device
) -> _Matrix:
    """A matrix of whole weights: ``number`` a sum, and counted in ``1 / units`` of it."""
    owner = np.repeat(np.arange(len(number)), number)
    # In its unit, the most that a sum can be on its way, and with its bias if it fits 8 bits.
    largest = max(np.bincount(owner, np.abs(weights)).max() * _MIDDLE, units.max() * 256)
    dtype = torch.float32 if largest <= _EXACT else torch.float64
    # What the shift by _MIDDLE has taken off, and a half to round by.
    bias = np.bincount(owner, weights, len(number)) / units * _MIDDLE + 0.5
    return _Matrix(
        torch.from_numpy(rows).to(device),
        torch.from_numpy(weights / units[owner]).to(device, dtype),
        torch.from_numpy(np.cumsum(number) - number).to(device),
        torch.from_numpy(bias[:, None]).to(device, dtype),
    )


def _resize_x(images: Sequence[Tensor], axis: Axis) -> Tensor:
    """(N, max h, 3, W) float32 pixels of (3, h, w) images; rows beyond an image's are undefined."""
    number, device = len(images), images[0].device
    height = max(image.shape[1] for image in images)
    begins = np.cumsum([0, *(image.shape[2] for image in images)])
    matrix = axis.matrix(begins[:-1], device)
    found = torch.empty((number, height, 3, axis.kept), device=device)
    step = max(_LIMIT // (3 * int(begins[-1])), 1)
    for top in range(0, height, step):
        rows = min(step, height - top)
        table = torch.empty((begins[-1], 3, rows), device=device)
        for image, begin in zip(images, begins.tolist(), strict=False):
            part = image[:, top : top + rows].permute(2, 0, 1)
            table[begin : begin + len(part), :, : part.shape[2]] = part
        columns = matrix.product(table.sub_(_MIDDLE).flatten(1))
        columns = columns.view(number, axis.kept, 3, rows)
        found[:, top : top + rows] = columns.permute(0, 3, 2, 1)
    return found


def _resize_y(images: Tensor, axis: Axis) -> Tensor:
    """(N, 3, H, W) float32 pixels of (N, h, 3, W) ones, which it overwrites."""
    number, height, _, width = images.shape
    matrix = axis.matrix(np.arange(number) * height, images.device)
    rows = matrix.product(images.sub_(_MIDDLE).view(number * height, 3 * width))
    return rows.view(number, axis.kept, 3, width).transpose(1, 2)


def _groups(heights: Integers, limit: int) -> Iterator[Integers]:
    """Indices of images of nearly the same height, of ``limit`` rows together unless it is one."""
    order = np.argsort(heights, kind="stable")
    begin = 0
    for end in range(1, len(order) + 1):
        if end < len(order):
            height = heights[order[end]]
            alike = height <= 1.25 * heights[order[begin]] + 8
            if alike and (end + 1 - begin) * height <= limit:
                continue
        yield order[begin:end]
        begin = end


def _ranges(start: Integers, number: Integers) -> Integers:
    """Numbers from each start on, a range after another."""
    ends = np.cumsum(number)
    return np.arange(ends[-1]) + np.repeat(start - ends + number, number)


def _unit(largest: Floats) -> Floats:
    """(N,) powers of two that the weights are counted in, so that 16 bits hold the largest."""
    powers = 2.0 ** np.arange(23)
    fits = np.floor(0.5 + largest[:, None] * powers[1:]) < 2**15
    return powers[fits.sum(1)]
