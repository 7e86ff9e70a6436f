"""The page that ``make demo`` leaves: one self-contained html file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semsam.utils.file_io import atomic_write

_STYLE = """
:root { --ink: #1d2430; --soft: #5d6778; --line: #e3e7ee; --paper: #fff; --wash: #f6f7fa;
        --blue: #2f6fde; --green: #178a54; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: var(--wash);
       font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 48px 24px 80px; }
h1 { font-size: 40px; line-height: 1.15; margin: 0 0 12px; letter-spacing: -0.02em; }
h2 { font-size: 23px; margin: 0 0 4px; letter-spacing: -0.01em; }
p { margin: 6px 0 14px; max-width: 76ch; }
.lead { font-size: 18px; color: var(--soft); }
.note { color: var(--soft); font-size: 14px; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 14px;
          padding: 26px 28px; margin-top: 24px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 16px;
           margin-top: 28px; }
.figure { background: var(--paper); border: 1px solid var(--line); border-radius: 14px;
          padding: 16px 20px; }
.figure b { display: block; font-size: 30px; line-height: 1.25; letter-spacing: -0.02em; }
.figure span { color: var(--soft); font-size: 14px; }
img { display: block; max-width: 100%; border-radius: 8px; }
figure { margin: 20px 0 0; }
figcaption { color: var(--soft); font-size: 14px; margin-top: 6px; }
.rows img { max-height: 175px; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr));
           gap: 18px; }
.gallery img { width: 100%; }
.gallery.large { grid-template-columns: repeat(auto-fill, minmax(420px, 1fr)); }
.rows.wide img { max-height: none; }
table { border-collapse: collapse; width: 100%; margin-top: 10px;
        font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 8px 10px; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
th { font-size: 13px; color: var(--soft); font-weight: 600; }
td.gain { color: var(--green); font-weight: 600; }
tr.group td { font-weight: 600; padding-top: 18px; }
code, pre { font: 13.5px/1.6 ui-monospace, SFMono-Regular, "DejaVu Sans Mono", monospace; }
pre { background: var(--wash); border: 1px solid var(--line); border-radius: 8px;
      padding: 12px 16px; overflow-x: auto; }
svg text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: var(--soft); }
"""

#: Rows of the table: task, metric, and what it means.
MEASURES = (
    ("oracle", "1-IoU", "Oracle: the best of the six masks of a click"),
    ("max", "1-IoU", "Max: the mask that the model itself rates best"),
    ("granularity", "1-IoU", "All granularities: every mask under the click"),
    ("oracle", "1-IoU large", "Oracle, large masks"),
    ("oracle", "1-IoU medium", "Oracle, medium masks"),
    ("oracle", "1-IoU small", "Oracle, small masks"),
)

Results = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Picture:
    """A picture with a line below it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        caption: plain text.
    """

    image: np.ndarray
    caption: str


@dataclass(frozen=True)
class Captions:
    """What the page shows of the model that describes regions.

    Attributes:
        regions: how many held-out regions were described.
        majority: the sentence that training holds most often.
        baseline: metrics of saying that of every region, by column.
        trained: metrics of the model, the same columns.
        shown: regions with their sentences.
        everything: scenes whose every mask was described.
    """

    regions: int
    majority: str
    baseline: dict[str, float]
    trained: dict[str, float]
    shown: Picture
    everything: Sequence[Picture]


@dataclass(frozen=True)
class Report:
    """What the page shows.

    Attributes:
        before: results of the untrained model by name of the held-out set.
        after: results of the trained model, the same sets.
        metrics: the lines of a run's ``metrics.json``.
        seconds: duration of each stage.
        clicks: one picture a click.
        everything: photos and scenes with all their masks.
        samples: training pictures.
        captions: of the model that describes regions.
        commands: how to do it again.
    """

    before: dict[str, Results]
    after: dict[str, Results]
    metrics: Sequence[dict[str, Any]]
    seconds: dict[str, float]
    clicks: Sequence[Picture]
    everything: Sequence[Picture]
    samples: Sequence[Picture]
    captions: Captions
    commands: Sequence[str]


def write_page(path: Path, report: Report) -> None:
    """Write the page; it needs no other file.

    Raises:
        ValueError: if nothing was logged, or a set was evaluated only once.
    """
    if set(report.before) != set(report.after):
        raise ValueError(
            f"evaluated before: {sorted(report.before)}, after: {sorted(report.after)}; "
            "both need the same sets"
        )
    with atomic_write(path) as file:
        file.write(_page(report))


def _page(report: Report) -> str:
    first = next(iter(report.after))
    gain = (report.before[first], report.after[first])
    figures = [
        (
            f"{gain[0]['oracle']['1-IoU']:.1f} → {gain[1]['oracle']['1-IoU']:.1f}",
            f"1-IoU Oracle, {first}",
        ),
        (f"{gain[0]['max']['1-IoU']:.1f} → {gain[1]['max']['1-IoU']:.1f}", f"1-IoU Max, {first}"),
        (f"{report.captions.trained['Exact']:.0f} %", "sentences right to the last word"),
        (_duration(sum(report.seconds.values())), "for everything, on this machine"),
    ]
    cards = "".join(
        f'<div class="figure"><b>{a}</b><span>{html.escape(b)}</span></div>' for a, b in figures
    )
    stages = ", ".join(f"{name} {_duration(s)}" for name, s in report.seconds.items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>semsam: the demo</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>
<body><main>
<h1>A click, six masks, from whole to part</h1>
<p class="lead">A small Semantic-SAM, trained from nothing on this machine a moment ago. One click
has several right answers: the pane, the window, the house, the row of houses. The model gives six
masks at once and says how good it thinks each one is.</p>
<div class="figures">{cards}</div>
<section><h2>Clicks on pictures it has never seen</h2>
<p class="note">The first held-out pictures, not chosen ones. The six masks of a click from
whole to part, and the IoU that the model expects of each.</p>
<div class="rows">{_figures(report.clicks)}</div></section>
<section><h2>Before and after training</h2>
<p class="note">Mean IoU in percent, one click a mask, on held-out pictures. Photos are few and
their masks come from a classical segmentation, so read them as a hint.</p>
{results_table(report.before, report.after)}</section>
<section><h2>The loss</h2>{loss_curve(report.metrics)}</section>
<section><h2>Everything at once</h2>
<p class="note">A grid of clicks, the good masks kept, duplicates removed.</p>
<div class="gallery">{_figures(report.everything)}</div></section>
<section><h2>And a sentence for every region</h2>
<p class="note">A second model, from nothing too: Segment and Caption Anything with SAM's decoder, a
text feature mixer and a language model of two layers that knows no word but those of the drawn
scenes. Boxes in, masks and sentences out.</p>
<div class="rows wide">{_figures([report.captions.shown])}</div>
{captions_table(report.captions)}
<p class="note">On {report.captions.regions:,} regions of held-out scenes. CIDEr-D and BLEU reward
the words that tell a region from others; exact is the share of sentences that are right to the
last word.</p>
<div class="gallery large">{_figures(report.captions.everything)}</div></section>
<section><h2>What they learned from</h2>
<p class="note">Drawn scenes with nested masks, names and captions, and real photos cut into nested
regions without a network. No data was downloaded.</p>
<div class="gallery">{_figures(report.samples)}</div></section>
<section><h2>Do it again</h2><pre>{html.escape(chr(10).join(report.commands))}</pre>
<p class="note">Time: {html.escape(stages)}.</p></section>
</main></body></html>
"""


def results_table(before: dict[str, Results], after: dict[str, Results]) -> str:
    """Measures as rows; before, after and gain as columns; a block for each held-out set."""
    rows = []
    for name in after:
        clicks = int(after[name]["oracle"]["clicks"])
        rows.append(
            f'<tr class="group"><td colspan="4">{html.escape(name)}, {clicks:,} clicks</td></tr>'
        )
        for task, metric, meaning in MEASURES:
            # A size of which the set has no mask has no measure.
            if metric in before[name][task]:
                old, new = before[name][task][metric], after[name][task][metric]
                rows.append(
                    f"<tr><td>{html.escape(meaning)}</td><td>{old:.1f}</td><td>{new:.1f}</td>"
                    f'<td class="gain">{new - old:+.1f}</td></tr>'
                )
    head = "<tr><th>1-IoU</th><th>before</th><th>after</th><th>gain</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def captions_table(captions: Captions) -> str:
    """Metrics as rows; the most frequent caption, the model and the ratio as columns."""
    rows = []
    for name, value in captions.trained.items():
        least = captions.baseline[name]
        times = f"{value / least:.1f}x" if least >= 0.05 else ""
        rows.append(
            f"<tr><td>{html.escape(name)}</td><td>{least:.1f}</td><td>{value:.1f}</td>"
            f'<td class="gain">{times}</td></tr>'
        )
    said = html.escape(f"always “{captions.majority}”")
    head = f"<tr><th>captions</th><th>{said}</th><th>the model</th><th>ratio</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def loss_curve(metrics: Sequence[dict[str, Any]], width: int = 1040, height: int = 300) -> str:
    """The total loss over the steps as an inline SVG.

    Raises:
        ValueError: if no line has a ``total_loss``.
    """
    steps, losses = np.array(_losses(metrics), float).T
    left, right, top, bottom = 44, 14, 14, 34
    highest = 1.05 * losses.max()
    x = left + (width - left - right) * steps / steps[-1]
    y = top + (height - top - bottom) * (1 - losses / highest)
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    floor = height - bottom
    area = f"{x[0]:.1f},{floor} {line} {x[-1]:.1f},{floor}"
    grid = []
    for value in _ticks(highest):
        at = top + (height - top - bottom) * (1 - value / highest)
        grid.append(
            f'<line x1="{left}" x2="{width - right}" y1="{at:.1f}" y2="{at:.1f}" stroke="#e3e7ee"/>'
            f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>'
        )
    for value in _ticks(steps[-1])[1:]:
        at = left + (width - left - right) * value / steps[-1]
        grid.append(f'<text x="{at:.1f}" y="{height - 12}" text-anchor="middle">{value:g}</text>')
    return (
        f'<svg viewBox="0 0 {width} {height}" width="100%" role="img" '
        f'aria-label="total loss over steps">{"".join(grid)}'
        f'<polygon points="{area}" fill="#2f6fde" opacity="0.09"/>'
        f'<polyline points="{line}" fill="none" stroke="#2f6fde" stroke-width="2.2" '
        f'stroke-linejoin="round"/></svg>'
    )


def _losses(metrics: Sequence[dict[str, Any]]) -> list[tuple[int, float]]:
    """(steps done, total loss) of each line that has both."""
    points = [(m["iteration"] + 1, m["total_loss"]) for m in metrics if "total_loss" in m]
    if not points:
        raise ValueError("no line of the metrics has a total_loss: did the training log?")
    return points


def _ticks(highest: float) -> list[float]:
    """Round values from 0, four to eight of them."""
    step = 10.0 ** np.floor(np.log10(highest))
    step *= next(f for f in (0.125, 0.25, 0.5, 1.0, 2.0) if highest / (step * f) <= 8)
    return [float(v) for v in np.arange(0, highest + 1e-9, step)]


def _figures(pictures: Sequence[Picture]) -> str:
    return "".join(
        f'<figure><img src="{_data_url(p.image)}" alt="{html.escape(p.caption, quote=True)}">'
        f"<figcaption>{html.escape(p.caption)}</figcaption></figure>"
        for p in pictures
    )


def _data_url(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
