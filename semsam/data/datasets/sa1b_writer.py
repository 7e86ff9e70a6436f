"""SA-1B's layout, written: a jpg and a json of the same name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from semsam.data.click_choice import choose_click
from semsam.utils.file_io import write_json


def make_annotation(number: int, mask: NDArray[np.bool_], **extra: Any) -> dict[str, Any]:
    """One entry of a SA-1B json.

    Args:
        number: its id.
        mask: (H, W) bool, not empty.
        **extra: further keys, such as ``name`` or ``parent``.

    Returns:
        The keys of SA-1B; ``point_coords`` is the pixel deepest inside the mask, and both qualities
        are 1, as the mask is the truth.

    Raises:
        ValueError: if the mask is empty.
    """
    if not mask.any():
        raise ValueError(f"mask {number} is empty; leave it out")
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    height, width = mask.shape
    return {
        "id": number,
        "segmentation": {"size": [height, width], "counts": code["counts"].decode()},
        "area": int(mask.sum()),
        "bbox": coco_mask.toBbox(code).tolist(),
        "point_coords": [list(map(float, choose_click(mask)))],
        "predicted_iou": 1.0,
        "stability_score": 1.0,
        "crop_box": [0.0, 0.0, float(width), float(height)],
        **extra,
    }


def write_pair(
    folder: Path,
    name: str,
    image: NDArray[np.uint8],
    annotations: list[dict[str, Any]],
    **extra: Any,
) -> None:
    """Write ``NAME.jpg`` and, last, ``NAME.json``.

    Args:
        folder: where; made if absent.
        name: of the files, without suffix.
        image: (H, W, 3) uint8 RGB.
        annotations: from ``make_annotation``.
        **extra: further keys of the json's ``image`` entry.
    """
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / f"{name}.jpg", quality=92)
    height, width = image.shape[:2]
    entry = {"image_id": name, "width": width, "height": height, "file_name": f"{name}.jpg"}
    content = {"image": {**entry, **extra}, "annotations": annotations}
    write_json(folder / f"{name}.json", content, indent=None)
