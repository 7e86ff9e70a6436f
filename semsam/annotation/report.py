"""What a folder of results says, in numbers and in a page for human review."""

from __future__ import annotations

import base64
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from semsam.data.records import BadRecordError
from semsam.utils.file_io import atomic_write
from semsam.utils.visualizer import distinct_color

from .candidate_report import (
    CandidateReport,
    list_missed,
    list_sources,
    name_source,
    report_candidates,
)
from .mask_sources import Item, MaskSource
from .output import read_results
from .pictures import draw_result
from .records import MaskedPhoto
from .shards import find_items, open_photos

_MAX_ROWS = 40
_MAX_SIDE = 720
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
  color: #1c1c22; background: #fff; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; } td, th { padding: .15rem .7rem; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
td.bar { width: 22rem; } td.bar div { background: #5b7fd6; height: .8rem; border-radius: 2px; }
figure { margin: 1.5rem 0; display: grid; grid-template-columns: minmax(0, 3fr) 2fr; gap: 1rem; }
figure img { max-width: 100%; max-height: 36rem; border-radius: 4px; }
figcaption { font-size: 13px; overflow: auto; max-height: 36rem; }
@media (max-width: 45rem) { figure { grid-template-columns: 1fr; } }
"""


@dataclass(frozen=True)
class Report:
    """Labels of a folder of results.

    Attributes:
        photos: that have a result.
        masks: of all photos; with the boxes that have none.
        boxes: of these, boxes without a mask.
        named: masks with a name, for each field of names: ``class_name``, and
            ``LABELER.class_name`` of further labellers.
        counts: how often each name was given, for each field, the most frequent first.
        agreement: for each pair of fields the masks to which both give a name, and to how many of
            them the same one but for capitals.
        fallbacks: masks whose name is a fallback (``class_fallback``), for lack of a better one.
    """

    photos: int
    masks: int
    boxes: int
    named: dict[str, int]
    counts: dict[str, list[tuple[str, int]]]
    agreement: dict[tuple[str, str], tuple[int, int]]
    fallbacks: int

    @property
    def regions(self) -> str:
        """What the photos' regions are, in words."""
        return "boxes" if self.boxes == self.masks else "masks"


def report_labels(results: str | Path) -> Report:
    """Count the labels of a folder of results.

    Raises:
        FileNotFoundError: if there are no results.
        ValueError: if one is damaged.
    """
    photos = masks = boxes = fallbacks = 0
    counts: dict[str, Counter[str]] = {}
    pairs: dict[tuple[str, str], list[int]] = {}
    for _, result in read_results(results):
        photos += 1
        masks += len(result["annotations"])
        for region in result["annotations"]:
            boxes += "segmentation" not in region
            fallbacks += any(
                value for key, value in region.items() if _is_field(key, "class_fallback")
            )
            names = {k: v for k, v in region.items() if _is_field(k, "class_name")}
            for field, name in names.items():
                counter = counts.setdefault(field, Counter())
                if name is not None:
                    counter[name] += 1
            for first, second in itertools.combinations(names, 2):
                one, other = names[first], names[second]
                if one is not None and other is not None:
                    pair = pairs.setdefault((first, second), [0, 0])
                    pair[0] += 1
                    pair[1] += one.casefold() == other.casefold()
    return Report(
        photos=photos,
        masks=masks,
        boxes=boxes,
        named={field: counter.total() for field, counter in counts.items()},
        counts={field: counter.most_common() for field, counter in counts.items()},
        agreement={fields: (both, same) for fields, (both, same) in pairs.items()},
        fallbacks=fallbacks,
    )


def write_review_sheet(
    results: str | Path, images: str | Path, path: str | Path, num_photos: int = 24
) -> Report:
    """Write a page with label counts, agreement and a sample of pictures; it needs no other file.

    Args:
        results: as ``AnnotationEngine.run`` leaves it.
        images: what was annotated: the folder of photos or of TSV shards, or the one photo.
        path: the html file.
        num_photos: pictures, of photos that are evenly spread over those with masks.

    Returns:
        What the page says in numbers.

    Raises:
        FileNotFoundError: if there are no results.
        ValueError: if one is damaged, or the number is not positive.
    """
    if num_photos < 1:
        raise ValueError(f"a sheet shows at least one photo, got {num_photos}")
    report = report_labels(results)
    masked = [
        (line["name"], line["file_name"])
        for line, result in read_results(results)
        if result["annotations"]
    ]
    rows = np.linspace(0, len(masked) - 1, min(num_photos, len(masked))).round().astype(int)
    sample = dict(masked[row] for row in rows.tolist())
    photos, items = open_photos(images), find_items(images, sample)
    parts = [*_summary(report)]
    candidates = report_candidates(result for _, result in read_results(results))
    if candidates is not None:
        parts += _candidate_section(candidates)
    for field, counts in report.counts.items():
        parts += [f"<h2>{escape(field)}</h2>", _count_table(counts)]
    parts.append("<h2>Sample</h2>")
    for line, result in read_results(results):
        if (name := line["name"]) in sample:
            parts.append(_figure(photos, items.get(name), line, result))
    title = f"Labels of {report.photos} photos"
    with atomic_write(path) as file:
        file.write(
            f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
            '<meta name="viewport" content="width=device-width">\n'
            f"<style>{_STYLE}</style>\n<h1>{title}</h1>\n" + "\n".join(parts) + "\n</html>\n"
        )
    return report


def _summary(report: Report) -> Iterable[str]:
    regions = report.regions
    yield f"<p>{report.masks} {regions} in {report.photos} photos.</p><ul>"
    for field, named in report.named.items():
        yield (
            f"<li>{escape(field)}: {_share(named, report.masks)} of the {regions} have a name, "
            f"{len(report.counts[field])} different ones.</li>"
        )
    if report.fallbacks:
        yield f"<li>{_share(report.fallbacks, report.masks)} of the names are fallbacks.</li>"
    for (first, second), (both, same) in report.agreement.items():
        yield (
            f"<li>{escape(first)} and {escape(second)} agree on {_share(same, both)} of the {both} "
            f"{regions} that both name.</li>"
        )
    yield "</ul>"


def _candidate_section(report: CandidateReport) -> Iterable[str]:
    total = report.total
    found, new = (_share(part, total.candidates) for part in (total.found, total.new))
    yield "<h2>Candidates</h2>"
    yield (
        f"<p>{report.captions} captions gave {report.a_caption:.1f} candidates each. Each name "
        f"counted once a photo, they are {total.candidates}: the detector found {found} of them; "
        f"{new} are new, no words of the captions.</p>"
    )
    rows = [
        f"<tr><td>{escape(name_source(source))}</td>"
        f'<td class="number">{number.candidates}</td>'
        f'<td class="number">{_share(number.found, number.candidates)}</td>'
        f'<td class="number">{_share(number.new, number.candidates)}</td></tr>'
        for source, number in report.sources.items()
    ]
    yield "<table><tr><th>from</th><th>candidates</th><th>found</th><th>new</th></tr>"
    yield f"{''.join(rows)}</table><h2>New names, in photos</h2>"
    rows = [
        f'<tr><td>{escape(name)}</td><td class="number">{thought}</td>'
        f'<td class="number">{found}</td></tr>'
        for name, thought, found in report.new_names[:_MAX_ROWS]
    ]
    yield f"<table><tr><th>name</th><th>thought of</th><th>found</th></tr>{''.join(rows)}</table>"


def _count_table(counts: Sequence[tuple[str, int]]) -> str:
    rows = []
    for name, number in counts[:_MAX_ROWS]:
        width = 100 * number / counts[0][1]
        rows.append(
            f'<tr><td>{escape(name)}</td><td class="number">{number}</td>'
            f'<td class="bar"><div style="width:{width:.1f}%"></div></td></tr>'
        )
    if len(counts) > _MAX_ROWS:
        rest = sum(number for _, number in counts[_MAX_ROWS:])
        rows.append(
            f"<tr><td><i>{len(counts) - _MAX_ROWS} others</i></td>"
            f'<td class="number">{rest}</td><td></td></tr>'
        )
    return f"<table>{''.join(rows)}</table>"


def _figure(
    photos: MaskSource, item: Item | None, line: dict[str, Any], result: dict[str, Any]
) -> str:
    """A picture, and beside it what is said of each region."""
    annotations = result["annotations"]
    names = [_shown_name(region) for region in annotations]
    try:
        if item is None:
            raise BadRecordError(f"no row is called '{line['name']}'")
        photo = MaskedPhoto(item.name, photos.read(item).image, annotations)
        picture = draw_result(photo, names, _MAX_SIDE)
        shown = f'<img alt="{escape(line["name"])}" src="{_as_url(picture)}">'
    except (BadRecordError, ValueError) as error:
        shown = f"<p>{escape(str(error))}</p>"
    texts = [escape(caption) for caption in result.get("captions", [])]
    if missed := list_missed(result):
        texts.append(f"<i>Not found: {escape(', '.join(missed))}</i>")
    return (
        f"<figure><div>{shown}</div><figcaption><b>{escape(line['file_name'])}</b>"
        f"{''.join(f'<p>{text}</p>' for text in texts)}{_region_table(names, result)}"
        "</figcaption></figure>"
    )


def _region_table(names: Sequence[str], result: dict[str, Any]) -> str:
    """A row a region; columns that no region of the photo has are left out."""
    columns: dict[str, list[str]] = {
        "name": list(names),
        "proposals": [_proposals(region) for region in result["annotations"]],
        "score": [
            f"{region['score']:.2f}" if "score" in region else ""
            for region in result["annotations"]
        ],
        "from": list_sources(result),
    }
    columns = {title: texts for title, texts in columns.items() if any(texts)}
    rows = [f"<tr><th></th>{''.join(f'<th>{title}</th>' for title in columns)}</tr>"]
    for number, texts in enumerate(zip(*columns.values(), strict=True)):
        colour = "rgb({}, {}, {})".format(*distinct_color(number))
        cells = "".join(f"<td>{escape(text)}</td>" for text in texts)
        rows.append(
            f'<tr><td style="border-left: .6rem solid {colour}">{number + 1}</td>{cells}</tr>'
        )
    return f"<table>{''.join(rows)}</table>"


def _proposals(region: dict[str, Any]) -> str:
    """Further names of a region, and what other labellers call it."""
    others = [
        f"{key.removesuffix('.class_name')}: {value}"
        for key, value in region.items()
        if key.endswith(".class_name")
    ]
    return "; ".join([", ".join(map(str, region.get("class_proposals") or [])), *others]).strip(
        "; "
    )


def _shown_name(region: dict[str, Any]) -> str:
    return str(region.get("class_name") or region.get("caption") or "")


def _as_url(picture: np.ndarray) -> str:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def _is_field(key: str, field: str) -> bool:
    return key == field or key.endswith(f".{field}")


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "none"
