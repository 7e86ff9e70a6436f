"""The masks of one image as vertical runs of foreground, transformed without being decoded.

A photo of SA-1B has a hundred masks of three million pixels and some tens of thousands of runs, so
everything that a mapper asks of masks (resize, area, box, who contains this pixel) is asked of the
runs. Only masks that are used become bitmaps, at the size at which they are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class RunLengthMasks:
    """M masks of one image; a run is a vertical stretch of one mask in one column.

    Attributes:
        size: (height, width) of every mask, in pixels.
        number: M.
        mask: (R,) index of the mask that a run belongs to, ascending.
        column: (R,) its column.
        top: (R,) its first row.
        bottom: (R,) the row after its last; runs of one mask do not overlap.
    """

    size: tuple[int, int]
    number: int
    mask: IntArray
    column: IntArray
    top: IntArray
    bottom: IntArray

    @staticmethod
    def from_coco(codes: Sequence[dict[str, Any]], size: tuple[int, int]) -> RunLengthMasks:
        """Read COCO run-length codes, compressed (text) or not (a list of counts).

        Args:
            codes: ``{"size": [height, width], "counts": ...}`` each.
            size: (height, width) that every code must have.

        Raises:
            ValueError: if a code is of another size, is damaged, or its counts do not fill it.
        """
        height, width = size
        starts, stops = [], []
        for number, code in enumerate(codes):
            if tuple(code["size"]) != (height, width):
                raise ValueError(
                    f"mask {number} is {list(code['size'])}, the image {[height, width]}"
                )
            counts = _parse_counts(code["counts"])
            if counts.sum() != height * width or (counts < 0).any():
                raise ValueError(f"the counts of mask {number} do not fill {height}x{width} pixels")
            edges = np.cumsum(counts)
            stops.append(edges[1::2])
            starts.append(edges[::2][: len(stops[-1])])
        mask = np.repeat(np.arange(len(codes)), [len(part) for part in starts])
        start, stop = (np.concatenate([*parts, _EMPTY]) for parts in (starts, stops))
        full = stop > start
        return _from_flat(size, len(codes), mask[full], start[full], stop[full])

    @staticmethod
    def from_labels(labels: NDArray[np.integer], ids: Sequence[int]) -> RunLengthMasks:
        """Split a label map into one mask an id, in the order of ``ids``.

        Args:
            labels: (H, W) label of each pixel; labels that are not in ``ids`` are background.
            ids: distinct labels.
        """
        height, width = labels.shape
        flat = np.ascontiguousarray(labels.T).reshape(-1)
        edge = np.ones(flat.size + 1, dtype=bool)
        edge[1:-1] = flat[1:] != flat[:-1]
        edges = np.flatnonzero(edge)
        order = np.argsort(ids)
        found = np.searchsorted(np.asarray(ids)[order], flat[edges[:-1]])
        mask = order[np.minimum(found, len(ids) - 1)] if len(ids) else found
        keep = np.asarray(ids, dtype=np.int64)[mask] == flat[edges[:-1]] if len(ids) else mask < 0
        start, stop, mask = edges[:-1][keep], edges[1:][keep], mask[keep]
        order = np.argsort(mask, kind="stable")
        return _from_flat((height, width), len(ids), mask[order], start[order], stop[order])

    @staticmethod
    def from_bitmaps(masks: BoolArray) -> RunLengthMasks:
        """Encode (M, H, W) bool masks."""
        number, height, width = masks.shape
        padded = np.zeros((number, width, height + 1), dtype=np.int8)
        padded[:, :, :height] = masks.transpose(0, 2, 1)
        change = np.diff(padded, axis=2, prepend=0)
        mask, column, top = np.nonzero(change == 1)
        bottom = np.nonzero(change == -1)[2]
        return RunLengthMasks((height, width), number, mask, column, top, bottom)

    def __len__(self) -> int:
        return self.number

    def select(self, indices: IntArray) -> RunLengthMasks:
        """Keep some masks; ``indices`` ascend."""
        new_index = np.full(self.number, -1)
        new_index[indices] = np.arange(len(indices))
        mask = new_index[self.mask]
        keep = mask >= 0
        return RunLengthMasks(
            self.size,
            len(indices),
            mask[keep],
            self.column[keep],
            self.top[keep],
            self.bottom[keep],
        )

    def resample(self, rows: IntArray, columns: IntArray, size: tuple[int, int]) -> RunLengthMasks:
        """Pick a source pixel for every output pixel, as nearest-neighbour resizing does.

        Args:
            rows: source row of each output row, ascending; fewer than ``size[0]`` leave the rest
                empty.
            columns: source column of each output column, ascending; as ``rows``.
            size: (height, width) of the output.
        """
        height, width = self.size
        # first_row[r]: how many sampled rows lie above source row r.
        first_row = np.searchsorted(rows, np.arange(height + 1))
        first_column = np.searchsorted(columns, np.arange(width + 1))
        top, bottom = first_row[self.top], first_row[self.bottom]
        first = first_column[self.column]
        copies = np.where(bottom > top, first_column[self.column + 1] - first, 0)
        run = np.repeat(np.arange(len(copies)), copies)
        copy = np.arange(len(run)) - np.repeat(np.cumsum(copies) - copies, copies)
        return RunLengthMasks(
            size, self.number, self.mask[run], first[run] + copy, top[run], bottom[run]
        )

    def flip(self) -> RunLengthMasks:
        """Mirror left and right."""
        mirrored = self.size[1] - 1 - self.column
        return RunLengthMasks(self.size, self.number, self.mask, mirrored, self.top, self.bottom)

    def decode(self) -> BoolArray:
        """(M, H, W) bool bitmaps."""
        height, width = self.size
        stride = -(-width // 8) * 8
        bitmaps = np.zeros((self.number, height, stride), dtype=np.uint8)
        flat = bitmaps.reshape(-1)
        column = self.mask * (height * stride) + self.column
        inside = self.bottom < height
        # Mark where runs begin and end; a mark met twice is one run that follows another.
        flat[column + self.top * stride] ^= 1
        flat[(column + self.bottom * stride)[inside]] ^= 1
        # Then each row is the row above with the marked pixels switched, eight pixels at a time, as
        # far as there are marks: what lies around a mask is memory that nobody touches.
        words = bitmaps.view(np.uint64)
        for mask, (left, top, right, bottom) in zip(words, self.boxes.astype(int), strict=True):
            part = mask[top : bottom + 1, left // 8 : -(-right // 8)]
            np.bitwise_xor.accumulate(part, axis=0, out=part)
        return np.ascontiguousarray(bitmaps[:, :, :width]).view(np.bool_)

    def window(self, index: int) -> tuple[int, int, BoolArray]:
        """One mask inside its tight box; the rest of the image is never decoded.

        Args:
            index: which mask.

        Returns:
            x, y of the box's first pixel, and (w, h) bool, column by column as runs lie; (0, 0)
            for a mask without pixels.
        """
        runs = slice(self._begin[index], self._begin[index + 1])
        if runs.start == runs.stop:
            return 0, 0, np.zeros((0, 0), dtype=bool)
        # Flipped and resized runs are in another order.
        order = np.lexsort((self.top[runs], self.column[runs])) + runs.start
        column, top, bottom = self.column[order], self.top[order], self.bottom[order]
        x, y = int(column[0]), int(top.min())
        width, height = int(column[-1]) - x + 1, int(bottom.max()) - y
        edges = np.empty(2 * len(column) + 2, dtype=np.int64)
        edges[0], edges[-1] = 0, width * height
        edges[1:-1:2] = (column - x) * height + top - y
        edges[2:-1:2] = (column - x) * height + bottom - y
        inside = np.arange(len(edges) - 1) % 2 == 1
        return x, y, np.repeat(inside, np.diff(edges)).reshape(width, height)

    @cached_property
    def areas(self) -> IntArray:
        """(M,) foreground pixels."""
        total = np.bincount(self.mask, weights=self.bottom - self.top, minlength=self.number)
        return total.astype(np.int64)

    @property
    def boxes(self) -> NDArray[np.float32]:
        """(M, 4) tight XYXY boxes in pixels, right and bottom edge after the last pixel.

        A mask without pixels has a box of zeros.
        """
        boxes = np.zeros((self.number, 4), dtype=np.float32)
        begin = self._begin
        some = begin[1:] > begin[:-1]
        if some.any():
            at = begin[:-1][some]
            boxes[some, 0] = np.minimum.reduceat(self.column, at)
            boxes[some, 1] = np.minimum.reduceat(self.top, at)
            boxes[some, 2] = np.maximum.reduceat(self.column, at) + 1
            boxes[some, 3] = np.maximum.reduceat(self.bottom, at)
        return boxes

    def pixel(self, index: int, position: int) -> tuple[int, int]:
        """The x, y of one foreground pixel of a mask, counted row by row from the top left.

        Args:
            index: which mask.
            position: 0 to ``areas[index] - 1``.
        """
        if not 0 <= position < self.areas[index]:
            raise ValueError(f"mask {index} has {self.areas[index]} pixels, no number {position}")
        runs = slice(self._begin[index], self._begin[index + 1])
        top, bottom = self.top[runs], self.bottom[runs]
        length = self.size[0] + 1
        per_row = np.cumsum(
            np.bincount(top, minlength=length) - np.bincount(bottom, minlength=length)
        )
        through = np.cumsum(per_row)
        row = int(np.searchsorted(through, position, side="right"))
        crossing = np.sort(self.column[runs][(top <= row) & (row < bottom)])
        return int(crossing[position - (through[row] - per_row[row])]), row

    def containing(self, x: int, y: int) -> IntArray:
        """Indices, ascending, of the masks that contain pixel (x, y)."""
        order, begin = self._by_column
        runs = order[begin[x] : begin[x + 1]]
        return self.mask[runs[(self.top[runs] <= y) & (y < self.bottom[runs])]]

    @cached_property
    def _begin(self) -> IntArray:
        """(M + 1,) where the runs of each mask begin."""
        return np.searchsorted(self.mask, np.arange(self.number + 1))

    @cached_property
    def _by_column(self) -> tuple[IntArray, IntArray]:
        """Runs in order of their column (then mask), and where each column begins."""
        order = np.argsort(self.column, kind="stable")
        return order, np.searchsorted(self.column[order], np.arange(self.size[1] + 1))


_EMPTY = np.empty(0, dtype=np.int64)


def _from_flat(
    size: tuple[int, int], number: int, mask: IntArray, start: IntArray, stop: IntArray
) -> RunLengthMasks:
    """Cut stretches of the column-major pixel order where they pass from one column to the next."""
    height = size[0]
    first, last = start // height, (stop - 1) // height
    pieces = last - first + 1
    run = np.repeat(np.arange(len(pieces)), pieces)
    column = first[run] + np.arange(len(run)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    top = np.where(column == first[run], start[run] % height, 0)
    bottom = np.where(column == last[run], (stop[run] - 1) % height + 1, height)
    return RunLengthMasks(size, number, mask[run], column, top, bottom)


def to_coco_code(segmentation: Any, size: tuple[int, int]) -> dict[str, Any]:
    """A run-length code with its counts as text, as json holds it.

    Args:
        segmentation: as COCO has it: polygons, or a code with a list of counts, bytes or text.
        size: (height, width) of the image, in which polygons are drawn.

    Raises:
        ValueError: if there is no polygon, or the code is of another size.
    """
    if isinstance(segmentation, list):
        if not segmentation:
            raise ValueError("a segmentation has no polygon")
        code = coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
    elif isinstance(segmentation["counts"], list):
        code = coco_mask.frPyObjects(segmentation, *size)
    else:
        code = segmentation
    if tuple(code["size"]) != tuple(size):
        raise ValueError(f"a mask is {list(code['size'])}, the image {list(size)}")
    counts = code["counts"]
    text = counts.decode() if isinstance(counts, bytes) else counts
    return {"size": list(size), "counts": text}


def _parse_counts(counts: str | bytes | Sequence[int]) -> IntArray:
    """Counts of background and foreground pixels in turn, background first.

    The text form writes a count as the difference to the one two before it, five bits a character,
    lowest first; bit 5 says that more follow, bit 4 of the last is the sign.
    """
    if isinstance(counts, str):
        counts = counts.encode()
    if not isinstance(counts, bytes):
        return np.asarray(counts, dtype=np.int64).reshape(-1)
    codes = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(codes & 32 == 0)
    if not len(ends) or ends[-1] != len(codes) - 1 or codes.min() < 0 or codes.max() > 63:
        raise ValueError("run-length text is damaged")
    begins = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - begins + 1
    if lengths.max() > 8:
        raise ValueError("run-length text is damaged")
    shift = 5 * (np.arange(len(codes)) - np.repeat(begins, lengths))
    values = np.add.reduceat((codes & 31) << shift, begins)
    values -= np.where(codes[ends] & 16, 1 << 5 * lengths, 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
