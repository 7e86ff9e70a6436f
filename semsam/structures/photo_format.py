"""How a photo, and clicks on it, reach a model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class PhotoFormat:
    """What a model expects of a photo that a user clicks on; each family was trained with its own.

    Attributes:
        min_size: the shorter side is resized to this, in pixels.
        max_size: cap on the longer side after resizing; None for no cap.
        interpolation: ``"bicubic"`` or ``"bilinear"``, both antialiased.
        click_ratio: width and height of the box that stands for a click, as a share of the image's,
            in decoders that read a click as a small box.

    Raises:
        ValueError: if a size is not positive or the interpolation is unknown.
    """

    min_size: int = 640
    max_size: int | None = None
    interpolation: str = "bicubic"
    click_ratio: float = 0.005

    def __post_init__(self) -> None:
        if self.min_size < 1 or (self.max_size is not None and self.max_size < 1):
            raise ValueError(f"sizes are positive pixels, got {self.min_size} and {self.max_size}")
        if self.interpolation not in _FILTERS:
            raise ValueError(
                f"interpolation is one of {', '.join(_FILTERS)}, not '{self.interpolation}'"
            )

    def resized(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(H, W) of a photo -> (h, w) of the model's input, before padding."""
        short, long = min(image_size), max(image_size)
        new_short, new_long = self.min_size, int(self.min_size * long / short)
        if self.max_size is not None and new_long > self.max_size:
            new_short, new_long = max(1, int(self.max_size * short / long + 0.5)), self.max_size
        return (new_short, new_long) if image_size[0] <= image_size[1] else (new_long, new_short)

    def resize(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> (h, w, 3) uint8."""
        height, width = self.resized((image.shape[0], image.shape[1]))
        resized = Image.fromarray(image).resize((width, height), _FILTERS[self.interpolation])
        return np.array(resized)

    def click_extent(self, input_size: tuple[int, int]) -> tuple[float, float]:
        """Width and height, in pixels of the (h, w) input, of the box that stands for a click."""
        return self.click_ratio * input_size[1], self.click_ratio * input_size[0]


def check_image(image: np.ndarray) -> None:
    """Raise ValueError unless an image is (H, W, 3) uint8 and not empty."""
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3:
        shape = getattr(image, "shape", type(image).__name__)
        raise ValueError(f"an image is an array of (H, W, 3) RGB, got {shape}")
    if image.dtype != np.uint8:
        raise ValueError(f"an image is uint8 in 0..255, got {image.dtype}; scale and convert it")
    if 0 in image.shape:
        raise ValueError(f"the image is empty: {image.shape}")
