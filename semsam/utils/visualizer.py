"""Pictures of masks, boxes and clicks on a photo, good enough to print.

Plain arrays in and out; coordinates are pixels of the photo whatever the size of the picture.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]

#: Marks of foreground and background clicks.
_CLICK_COLORS: dict[int, Color] = {1: (46, 204, 113), 0: (231, 76, 60)}
_WHITE, _INK = (255, 255, 255), (24, 24, 28)
_GAP = 12
#: Fonts that machines have, with letters that Pillow's own, which knows English, lacks.
_MORE_FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arial.ttf"),
    *("NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc", "PingFang.ttc", "msyh.ttc"),
)
#: How far from its place a label may go, in heights of its plate.
_LABEL_REACH = 3


def distinct_color(index: int) -> Color:
    """The ``index``-th of a series of RGB colours that look equally strong and unlike their kin.

    Hues step by the golden angle on a circle of the OKLCH space, at three lightnesses in turn.
    """
    lightness = (0.72, 0.62, 0.80)[index % 3]
    hue = np.deg2rad(28.0 + 137.508 * index)
    a, b = 0.17 * np.cos(hue), 0.17 * np.sin(hue)
    # Bjorn Ottosson's OKLab to linear sRGB.
    cone = np.array(
        [[1, 0.3963378, 0.2158038], [1, -0.1055613, -0.0638542], [1, -0.0894842, -1.291486]]
    )
    to_rgb = np.array(
        [
            [4.0767417, -3.3077116, 0.2309699],
            [-1.2684380, 2.6097574, -0.3413194],
            [-0.0041961, -0.7034186, 1.7076147],
        ]
    )
    linear = np.clip(to_rgb @ (cone @ np.array([lightness, a, b])) ** 3, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = np.round(255 * encoded).astype(int).tolist()
    return red, green, blue


class Visualizer:
    """Draws on a copy of a photo; every method returns the visualizer, so that calls chain.

    ::

        picture = Visualizer(image).draw_masks(masks).draw_points([[120, 80]]).image

    Args:
        image: (H, W, 3) uint8 RGB.
        scale: size of the picture relative to the photo.

    Attributes:
        image: (scale * H, scale * W, 3) uint8 RGB, what has been drawn so far.
    """

    def __init__(self, image: np.ndarray, scale: float = 1.0) -> None:
        self.size = (image.shape[0], image.shape[1])
        height, width = (max(1, round(side * scale)) for side in self.size)
        self._factor = np.array([width / self.size[1], height / self.size[0]])
        filters = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        self.image = cv2.resize(image, (width, height), interpolation=filters)
        # A line that is fine on a thumbnail and on a poster.
        self.line = max(1, round(min(height, width) / 320))
        self._plates: list[tuple[int, int, int, int]] = []

    def fade(self, amount: float = 0.55) -> Visualizer:
        """Turn the photo towards light grey, to let what is drawn next stand out."""
        grey = cv2.cvtColor(self.image, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
        pale = 0.5 * grey + 0.5 * 255
        self.image = _to_uint8((1 - amount) * self.image + amount * pale)
        return self

    def draw_masks(
        self,
        masks: ArrayLike,
        colors: Sequence[Color] | None = None,
        labels: Sequence[str] | None = None,
        alpha: float = 0.45,
    ) -> Visualizer:
        """Fill masks softly and outline them, the largest first so that parts stay visible.

        Args:
            masks: (N, H, W) bool.
            colors: one a mask; distinct ones if None.
            labels: written in the middle of each mask or near it, those of large masks first; one
                that would cover another is left out.
            alpha: opacity of the fill.

        Raises:
            ValueError: if the masks are not of the photo's size, or there is not a label a mask.
        """
        masks = np.asarray(masks, dtype=bool)
        if masks.ndim != 3 or masks.shape[1:] != self.size:
            raise ValueError(f"masks are (N, {self.size[0]}, {self.size[1]}), got {masks.shape}")
        texts = [""] * len(masks) if labels is None else list(labels)
        if len(texts) != len(masks):
            raise ValueError(f"{len(masks)} masks, but {len(texts)} labels")
        order = np.argsort(-masks.sum(axis=(1, 2)), kind="stable").tolist()
        for index in order:
            color = colors[index] if colors else distinct_color(index)
            self._draw_mask(masks[index], color, alpha)
        for index in order:
            if texts[index] and masks[index].any():
                anchor = _inner_point(masks[index]) * self._factor
                self._draw_label(texts[index], anchor, centre=True)
        return self

    def draw_boxes(
        self,
        boxes: ArrayLike,
        colors: Sequence[Color] | None = None,
        labels: Sequence[str] | None = None,
    ) -> Visualizer:
        """Outline boxes.

        Args:
            boxes: (N, 4) XYXY pixels of the photo.
            colors: one a box; distinct ones if None.
            labels: written at each box's top left corner or near it; one that would cover another
                is left out.
        """
        places = np.asarray(boxes, dtype=float).reshape(-1, 4) * np.tile(self._factor, 2)
        for index, (x0, y0, x1, y1) in enumerate(places):
            color = colors[index] if colors else distinct_color(index)
            corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
            self._draw_lines([corners], _WHITE, self.line + 3)
            self._draw_lines([corners], color, self.line + 1)
        # Last, so that no line crosses them.
        for index, label in enumerate(labels or []):
            self._draw_label(label, places[index, :2], centre=False)
        return self

    def draw_points(self, points: ArrayLike, labels: ArrayLike | None = None) -> Visualizer:
        """Mark clicks with ringed dots.

        Args:
            points: (N, 2) x, y pixels of the photo.
            labels: (N,) 1 foreground (green), 0 background (red); all foreground if None.
        """
        points = np.asarray(points, dtype=float).reshape(-1, 2)
        kinds = np.ones(len(points), dtype=int) if labels is None else np.asarray(labels).ravel()
        radius = 3 * self.line + 2
        for point, kind in zip(points * self._factor, kinds, strict=True):
            self._draw_dot(point, radius + self.line + 1, _INK, 0.55)
            self._draw_dot(point, radius + self.line, _WHITE, 1.0)
            self._draw_dot(point, radius, _CLICK_COLORS[int(kind)], 1.0)
        return self

    def _draw_mask(self, mask: np.ndarray, color: Color, alpha: float) -> None:
        height, width = self.image.shape[:2]
        x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
        if not w:
            return
        # Blurred by half a pixel of the photo: an edge without steps at any scale.
        soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.6)
        soft = cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR)
        (left, top), margin = self._factor * (x, y), 3
        right, bottom = self._factor * (x + w, y + h) + margin
        window = np.s_[
            max(0, int(top) - margin) : int(bottom) + 1, max(0, int(left) - margin) : int(right) + 1
        ]
        cover = alpha * soft[window][..., None]
        self.image[window] = _to_uint8((1 - cover) * self.image[window] + cover * np.array(color))
        outlines, _ = cv2.findContours(
            (soft > 0.5).view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
        )
        self._draw_lines([line[:, 0] + 0.5 for line in outlines], color, self.line)

    def _draw_lines(self, lines: list[np.ndarray], color: Color, thickness: int) -> None:
        """Closed lines through (N, 2) x, y of the picture, with sub-pixel positions."""
        fixed = [np.round((line - 0.5) * 16).astype(np.int32) for line in lines]
        cv2.polylines(self.image, fixed, True, color, thickness, cv2.LINE_AA, shift=4)

    def _draw_dot(self, centre: np.ndarray, radius: float, color: Color, alpha: float) -> None:
        low = np.maximum(np.floor(centre - radius - 1), 0).astype(int)
        high = np.ceil(centre + radius + 1).astype(int)
        part = self.image[low[1] : high[1], low[0] : high[0]]
        y, x = np.ogrid[: part.shape[0], : part.shape[1]]
        distance = np.hypot(x + low[0] + 0.5 - centre[0], y + low[1] + 0.5 - centre[1])
        cover = alpha * np.clip(radius + 0.5 - distance, 0, 1)[..., None]
        part[:] = _to_uint8((1 - cover) * part + cover * np.array(color))

    def _draw_label(self, text: str, anchor: np.ndarray, centre: bool) -> None:
        """White text on a dark plate, inside the picture, if there is room near the anchor."""
        height, width = self.image.shape[:2]
        font = _font(max(11, 5 * self.line + 8), text)
        left, top, right, bottom = font.getbbox(text)
        pad = 4
        plate_w, plate_h = int(right - left) + 2 * pad, int(bottom - top) + 2 * pad
        x, y = anchor - (plate_w / 2, plate_h / 2) if centre else anchor
        x0 = int(np.clip(x, 0, max(0, width - plate_w)))
        y0 = int(np.clip(y, 0, max(0, height - plate_h)))
        row = self._free_row(x0, y0, plate_w, plate_h)
        if row is None:
            return
        y0 = row
        canvas = Image.fromarray(self.image)
        draw = ImageDraw.Draw(canvas, "RGBA")
        plate = (x0, y0, x0 + plate_w, y0 + plate_h)
        self._plates.append(plate)
        draw.rounded_rectangle(plate, radius=pad, fill=(*_INK, 190))
        draw.text((x0 + pad - left, y0 + pad - top), text, font=font, fill=_WHITE)
        self.image = np.array(canvas)

    def _free_row(self, x0: int, y0: int, width: int, height: int) -> int | None:
        """The top nearest to ``y0``, within a few plates, at which a plate covers no other."""
        last = max(0, self.image.shape[0] - height)
        reach = _LABEL_REACH * height
        near = range(max(0, y0 - reach), min(last, y0 + reach) + 1)
        for top in sorted(near, key=lambda row: abs(row - y0)):
            if not any(
                x0 <= right and left <= x0 + width and top <= bottom and above <= top + height
                for left, above, right, bottom in self._plates
            ):
                return top
        return None


def draw_levels(
    image: np.ndarray,
    masks: ArrayLike,
    captions: Sequence[str],
    points: ArrayLike | None = None,
    box: ArrayLike | None = None,
    panel_height: int = 360,
) -> np.ndarray:
    """One prompt's masks side by side: the photo with its prompt, then a panel a mask.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: (K, H, W) bool.
        captions: K lines, written below the masks.
        points: (P, 2) clicks, in pixels of the photo.
        box: (4,) XYXY, in pixels of the photo.
        panel_height: of each panel, in pixels.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    masks = np.asarray(masks, dtype=bool)
    scale = panel_height / image.shape[0]
    panels = []
    for index in range(-1, len(masks)):
        panel = Visualizer(image, scale)
        if index >= 0:
            panel.fade().draw_masks(masks[index : index + 1], [distinct_color(index)], alpha=0.55)
        if box is not None:
            panel.draw_boxes(np.asarray(box)[None], [_CLICK_COLORS[1]])
        if points is not None:
            panel.draw_points(points)
        panels.append(panel.image)
    return _captioned_row(panels, ["prompt", *captions])


def draw_everything(
    image: np.ndarray,
    masks: ArrayLike,
    scale: float = 1.0,
    labels: Sequence[str] | None = None,
) -> np.ndarray:
    """All masks of a photo in one picture.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: (N, H, W) bool.
        scale: size of the picture relative to the photo.
        labels: written in the middle of each mask.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    return Visualizer(image, scale).fade(0.35).draw_masks(masks, labels=labels, alpha=0.5).image


def draw_grid(panels: Sequence[np.ndarray], captions: Sequence[str], columns: int) -> np.ndarray:
    """Pictures of one size in rows, each with a line of text below it.

    Args:
        panels: N of (h, w, 3) uint8 RGB.
        captions: N texts; long ones are wrapped.
        columns: pictures a row; the last row may have fewer.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: if there is no picture, or their sizes differ.
    """
    if len({panel.shape for panel in panels}) != 1:
        raise ValueError(f"pictures of one size are expected, got {[p.shape for p in panels]}")
    missing = -len(panels) % columns
    panels = [*panels, *[np.full_like(panels[0], 255)] * missing]
    captions = [*captions, *[""] * missing]
    return np.vstack(
        [
            _captioned_row(panels[start : start + columns], captions[start : start + columns])
            for start in range(0, len(panels), columns)
        ]
    )


def _captioned_row(panels: Sequence[np.ndarray], captions: Sequence[str]) -> np.ndarray:
    """Panels of one size on white, a caption under each."""
    height, width = panels[0].shape[:2]
    font = _font(max(14, round(height / 18)), "".join(captions))
    wrapped = [_wrap(caption, font, width) for caption in captions]
    lines = max(text.count("\n") + 1 for text in wrapped)
    band = round((0.6 + 1.3 * lines) * font.size)
    row = Image.new(
        "RGB", (len(panels) * (width + _GAP) + _GAP, height + band + _GAP), color=_WHITE
    )
    draw = ImageDraw.Draw(row)
    for index, (panel, caption) in enumerate(zip(panels, wrapped, strict=True)):
        x = _GAP + index * (width + _GAP)
        row.paste(Image.fromarray(panel), (x, _GAP))
        middle = (x + width / 2, _GAP + height + band / 2)
        draw.multiline_text(middle, caption, font=font, fill=_INK, anchor="mm", align="center")
    return np.array(row)


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Break a sentence between words where it would be wider than ``width`` pixels."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def _inner_point(mask: np.ndarray) -> np.ndarray:
    """x, y of the pixel farthest from the mask's edge."""
    depth = cv2.distanceTransform(np.pad(mask, 1).view(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return np.array([x + 0.5, y + 0.5])


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)


def _font(size: int, text: str) -> ImageFont.FreeTypeFont:
    """Pillow's own scalable font, or one of the machine's that has more of the text's letters."""
    own, letters = _fonts(size)[0], set(text)
    if not _missing(own, letters):
        return own
    return min(_fonts(size), key=lambda font: _missing(font, letters))


def _missing(font: ImageFont.FreeTypeFont, letters: set[str]) -> int:
    """How many letters the font draws as it draws what is no letter."""
    none = bytes(font.getmask("\uffff"))
    return sum(not letter.isspace() and bytes(font.getmask(letter)) == none for letter in letters)


@cache
def _fonts(size: int) -> list[ImageFont.FreeTypeFont]:
    own = ImageFont.load_default(size)
    assert isinstance(own, ImageFont.FreeTypeFont)
    fonts = [own]
    for name in _MORE_FONTS:
        with contextlib.suppress(OSError):
            fonts.append(ImageFont.truetype(name, size))
    return fonts
