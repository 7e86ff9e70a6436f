"""A picture of a photo's masks with one label each, for the eye."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from semsam.utils.visualizer import Visualizer, distinct_color, draw_everything

from .records import MaskedPhoto

#: Longer side of a picture, in pixels: all masks of a large photo would take gigabytes as bitmaps.
MAX_SIDE = 1280


def draw_result(photo: MaskedPhoto, names: Sequence[str], max_side: int = MAX_SIDE) -> np.ndarray:
    """All masks of a photo with their names; the box of what has no mask.

    Args:
        photo: with N annotations.
        names: N; an empty one is not written.
        max_side: the photo is shrunk until its longer side has so many pixels; a small one is
            enlarged towards it, up to twice, to make room for the names.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    height, width = photo.image.shape[:2]
    factor = min(1.0, max_side / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    image = cv2.resize(photo.image, size, interpolation=cv2.INTER_AREA)
    masks = np.zeros((len(names), size[1], size[0]), dtype=bool)
    boxes = [i for i, region in enumerate(photo.annotations) if "segmentation" not in region]
    for index in set(range(len(names))).difference(boxes):
        bits = photo.mask(index).view(np.uint8)
        masks[index] = cv2.resize(bits, size, interpolation=cv2.INTER_NEAREST)
    scale = min(2.0, max_side / max(size))
    picture = draw_everything(image, masks, scale, list(names))
    if not boxes:
        return picture
    corners = np.array([photo.annotations[i]["bbox"] for i in boxes], dtype=float)
    corners[:, 2:] += corners[:, :2]
    corners *= np.tile(np.divide(picture.shape[1::-1], (width, height)), 2)
    colors = [distinct_color(index) for index in boxes]
    labels = [names[index] for index in boxes]
    return Visualizer(picture).draw_boxes(corners, colors, labels).image


def encode_png(picture: np.ndarray) -> bytes:
    """A (h, w, 3) uint8 RGB picture as a png file."""
    _, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return data.tobytes()
