"""Nested masks of a photo without a network: superpixels, merged pair by pair into a tree.

The photo is cut along its edges into superpixels (watershed of the colour gradient), and the two
neighbours that differ least are merged until one region is left. A region that stays whole over a
long stretch of merging is a thing of its own; those regions, parents and children alike, are the
masks. This is the classical recipe of hierarchical segmentation (Arbelaez, "Boundary extraction in
natural images using ultrametric contour maps", 2006) at its simplest. It needs scikit-image.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

#: Colour difference (in L*a*b*) that weighs as much as an edge of the photo's mean strength.
_COLOR_SCALE = 12.0
# How strongly small regions are merged first.
_SIZE_EXPONENT = 0.35
# Regions of at least this IoU are one mask.
_MAX_IOU = 0.8


@dataclass(frozen=True)
class NestedMasks:
    """Masks of which any two are disjoint or one holds the other.

    Attributes:
        superpixels: (H, W) ids, 0 to L - 1.
        members: (N, L) bool, the superpixels of each mask; largest mask first.
        parents: index of the smallest mask that holds a mask, or None.
    """

    superpixels: NDArray[np.int64]
    members: NDArray[np.bool_]
    parents: tuple[int | None, ...]

    def __len__(self) -> int:
        return len(self.members)

    def mask(self, index: int) -> NDArray[np.bool_]:
        """(H, W) bool."""
        return np.asarray(self.members[index][self.superpixels])

    @cached_property
    def masks(self) -> NDArray[np.bool_]:
        """(N, H, W) bool; of a large photo that is gigabytes."""
        masks = np.zeros((len(self), *self.superpixels.shape), bool)
        for index in range(len(self)):
            masks[index] = self.mask(index)
        return masks


def segment_hierarchy(
    image: NDArray[np.uint8],
    num_superpixels: int = 500,
    max_masks: int = 28,
    min_area: float = 0.006,
    max_area: float = 0.8,
) -> NestedMasks:
    """Cut a photo into nested masks.

    Args:
        image: (H, W, 3) uint8 RGB.
        num_superpixels: of the finest level, about.
        max_masks: the most persistent regions are kept.
        min_area: least share of the image.
        max_area: greatest share of the image.

    Raises:
        ValueError: if the image has another shape or dtype.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image is (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}")
    labels, lab, edges = _superpixels(image, num_superpixels)
    tree = _merge(labels, lab, edges)
    share = tree.areas / labels.size
    fits = np.flatnonzero((share >= min_area) & (share <= max_area) & (tree.deaths < np.inf))
    # Costs grow with area: the difference alone would favour wholes, the ratio alone parts.
    persistence = (tree.deaths - tree.births)[fits] / np.sqrt(np.maximum(tree.deaths[fits], 1e-9))
    chosen = _distinct(tree, fits[np.argsort(-persistence, kind="stable")], max_masks)
    members = tree.leaves()[chosen]
    return NestedMasks(labels, members, _parents(members))


def _superpixels(
    image: NDArray[np.uint8], number: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Labels from 0, the smoothed photo in L*a*b*, and its edge strength."""
    from skimage.color import rgb2lab
    from skimage.filters import gaussian, sobel
    from skimage.segmentation import watershed

    lab = gaussian(rgb2lab(image), 1.2, channel_axis=2)
    edges = np.sqrt(sum(sobel(lab[..., c]) ** 2 for c in range(3)))
    labels = watershed(edges, markers=number, compactness=0.002 * float(edges.mean()))
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape), lab, edges


@dataclass(frozen=True)
class _Tree:
    """A binary tree of regions; the first L nodes are superpixels, later ones merge two.

    Attributes:
        children: (M, 2) of node L + i.
        areas: (L + M,) pixels.
        births: (L + M,) cost at which a node came to be, never below its children's.
        deaths: (L + M,) cost at which it was merged into another; infinite for the root.
    """

    children: NDArray[np.int64]
    areas: NDArray[np.int64]
    births: NDArray[np.float64]
    deaths: NDArray[np.float64]

    def leaves(self) -> NDArray[np.bool_]:
        """(L + M, L): which superpixels each node holds."""
        number = len(self.areas) - len(self.children)
        holds = np.zeros((len(self.areas), number), bool)
        holds[np.arange(number), np.arange(number)] = True
        for node, (a, b) in enumerate(self.children, start=number):
            holds[node] = holds[a] | holds[b]
        return holds

    def parents(self) -> NDArray[np.int64]:
        """(L + M,) the node that each was merged into; -1 for the root."""
        parents = np.full(len(self.areas), -1)
        leaves = len(self.areas) - len(self.children)
        for node, pair in enumerate(self.children, start=leaves):
            parents[pair] = node
        return parents


def _merge(
    labels: NDArray[np.int64], lab: NDArray[np.float64], edges: NDArray[np.float64]
) -> _Tree:
    number = int(labels.max()) + 1
    areas = list(np.bincount(labels.ravel(), minlength=number))
    color = [
        np.array(mean)
        for mean in np.stack(
            [np.bincount(labels.ravel(), lab[..., c].ravel(), number) for c in range(3)], 1
        )
        / np.array(areas)[:, None]
    ]
    # neighbours[a][b]: summed edge strength and length of the border between a and b.
    neighbours = _borders(labels, edges / max(float(edges.mean()), 1e-9))
    births, deaths = [0.0] * number, [np.inf] * number
    children: list[tuple[int, int]] = []

    def cost(a: int, b: int) -> float:
        strength, length = neighbours[a][b]
        difference = float(np.linalg.norm(color[a] - color[b])) / _COLOR_SCALE
        return (strength / length + difference) * min(areas[a], areas[b]) ** _SIZE_EXPONENT

    queue = [(cost(a, b), a, b) for a in range(number) for b in neighbours[a] if a < b]
    heapq.heapify(queue)
    while queue:
        price, a, b = heapq.heappop(queue)
        if deaths[a] < np.inf or deaths[b] < np.inf:
            continue
        node = len(areas)
        level = max(price, births[a], births[b])
        deaths[a] = deaths[b] = level
        births.append(level)
        deaths.append(np.inf)
        children.append((a, b))
        areas.append(areas[a] + areas[b])
        color.append((areas[a] * color[a] + areas[b] * color[b]) / areas[node])
        joined: dict[int, tuple[float, float]] = {}
        for old in (a, b):
            for other, (strength, length) in neighbours[old].items():
                if other not in (a, b):
                    s, n = joined.get(other, (0.0, 0.0))
                    joined[other] = (s + strength, n + length)
                    del neighbours[other][old]
        neighbours.append(joined)
        for other, border in joined.items():
            neighbours[other][node] = border
            heapq.heappush(queue, (cost(node, other), node, other))
    return _Tree(
        np.array(children, int).reshape(-1, 2), np.array(areas), np.array(births), np.array(deaths)
    )


def _borders(
    labels: NDArray[np.int64], edges: NDArray[np.float64]
) -> list[dict[int, tuple[float, float]]]:
    number = int(labels.max()) + 1
    sides = [
        (labels[:, :-1], labels[:, 1:], edges[:, :-1], edges[:, 1:]),
        (labels[:-1], labels[1:], edges[:-1], edges[1:]),
    ]
    keys, values = [], []
    for first, second, left, right in sides:
        differ = first != second
        low, high = np.minimum(first, second)[differ], np.maximum(first, second)[differ]
        keys.append(low * number + high)
        values.append(np.maximum(left, right)[differ])
    pairs, index = np.unique(np.concatenate(keys), return_inverse=True)
    strength = np.bincount(index, np.concatenate(values))
    length = np.bincount(index)
    neighbours: list[dict[int, tuple[float, float]]] = [{} for _ in range(number)]
    for pair, s, n in zip(pairs, strength, length, strict=True):
        a, b = divmod(int(pair), number)
        neighbours[a][b] = neighbours[b][a] = (float(s), float(n))
    return neighbours


def _distinct(tree: _Tree, nodes: NDArray[np.int64], number: int) -> list[int]:
    """The first ``number`` nodes that are not nearly equal to one before; largest first.

    Of two regions that share a pixel one holds the other, so that their IoU is the ratio of areas.
    """
    parents = tree.parents()
    leaves = len(tree.areas) - len(tree.children)
    is_chosen = np.zeros(len(tree.areas), bool)

    def nearly_equal(node: int) -> Iterator[int]:
        above = parents[node]
        while above >= 0 and tree.areas[node] / tree.areas[above] >= _MAX_IOU:
            yield above
            above = parents[above]
        below = node
        while below >= leaves:
            # Only the larger one of two children can be.
            below = max(tree.children[below - leaves], key=lambda child: tree.areas[child])
            if tree.areas[below] / tree.areas[node] < _MAX_IOU:
                break
            yield below

    chosen: list[int] = []
    for node in nodes.tolist():
        if len(chosen) == number:
            break
        if not any(is_chosen[other] for other in nearly_equal(node)):
            is_chosen[node] = True
            chosen.append(node)
    return sorted(chosen, key=lambda node: -tree.areas[node])


def _parents(members: NDArray[np.bool_]) -> tuple[int | None, ...]:
    """Masks come largest first, so the last one before that holds a mask is the smallest."""
    parents: list[int | None] = []
    for i, mask in enumerate(members):
        first = int(mask.argmax())
        holders = np.flatnonzero(members[:i, first])
        parents.append(int(holders[-1]) if len(holders) else None)
    return tuple(parents)
