"""Tables and charts of bars as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from semsam.utils.visualizer import distinct_color

_WHITE, _INK, _GREY = (255, 255, 255), (24, 24, 28), (120, 120, 128)
_ROW, _MARGIN, _TITLE = 26, 24, 34
_LABEL, _BAR, _VALUE = 140, 300, 90
_WIDTH = _LABEL + _BAR + _VALUE


def draw_table(title: str, rows: Sequence[tuple[str, str]]) -> np.ndarray:
    """Names at the left, their values at the right: (h, w, 3) uint8 RGB."""
    draw, picture = _panel(title, len(rows))
    for row, (name, value) in enumerate(rows):
        y = _TITLE + _ROW * row + _ROW // 2
        draw.text((0, y), name, font=_font(15), fill=_INK, anchor="lm")
        draw.text((_WIDTH - _VALUE, y), value, font=_font(15), fill=_INK, anchor="rm")
    return np.array(picture)


def draw_bars(title: str, names: Sequence[str], values: Sequence[float]) -> np.ndarray:
    """Lying bars, one a value, each with its name and its share in percent.

    Args:
        title: stands above.
        names: N.
        values: N, not negative.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    draw, picture = _panel(title, len(names))
    total, longest = sum(values) or 1, max(values) or 1
    for row, (name, value) in enumerate(zip(names, values, strict=True)):
        y = _TITLE + _ROW * row + _ROW // 2
        draw.text((_LABEL - 10, y), name, font=_font(15), fill=_INK, anchor="rm")
        end = _LABEL + round(_BAR * value / longest)
        if end > _LABEL:
            bar = (_LABEL, y - 9, end, y + 9)
            draw.rounded_rectangle(bar, radius=3, fill=distinct_color(0))
        share = f"{value / total:.1%}" if value else ""
        draw.text((end + 8, y), share, font=_font(15), fill=_GREY, anchor="lm")
    return np.array(picture)


def draw_report(
    title: str,
    rows: Sequence[tuple[str, str]],
    charts: Mapping[str, tuple[Sequence[str], Sequence[float]]],
) -> np.ndarray:
    """A table, and charts of bars around it, in two columns.

    Args:
        title: of the table.
        rows: of the table.
        charts: title -> names and values of its bars.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    columns: list[list[np.ndarray]] = [[draw_table(title, rows)], []]
    for name, (names, values) in charts.items():
        shorter = min(columns, key=lambda column: sum(len(panel) for panel in column))
        shorter.append(draw_bars(name, names, values))
    height = max(sum(len(panel) for panel in column) for column in columns)
    picture = np.full((height + _MARGIN, 2 * (_WIDTH + _MARGIN) + _MARGIN, 3), 255, dtype=np.uint8)
    for number, column in enumerate(columns):
        left, top = _MARGIN + number * (_WIDTH + _MARGIN), _MARGIN
        for panel in column:
            picture[top : top + len(panel), left : left + _WIDTH] = panel
            top += len(panel)
    return picture


def _panel(title: str, rows: int) -> tuple[ImageDraw.ImageDraw, Image.Image]:
    picture = Image.new("RGB", (_WIDTH, _TITLE + _ROW * rows + _MARGIN), _WHITE)
    draw = ImageDraw.Draw(picture)
    draw.text((0, 0), title, font=_font(18), fill=_INK)
    return draw, picture


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
