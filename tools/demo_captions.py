"""What the page of ``make demo`` shows of a model that describes regions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from demo_page import Captions, Picture

from semsam import AutomaticMaskGenerator, RegionCaptioner
from semsam.data import DatasetCatalog
from semsam.data.records import LazyImage
from semsam.evaluation.caption_metrics import CaptionScorer
from semsam.utils.visualizer import Visualizer, distinct_color, draw_grid

#: Described regions in the picture, and how many of them are in a row.
SHOWN, COLUMNS = 12, 4
#: Sentences in a picture of everything; more would hide each other.
MOST_LABELS = 5


def report_captions(
    captioner: RegionCaptioner,
    generator: AutomaticMaskGenerator,
    run: Path,
    train: str,
    held_out: str,
) -> Captions:
    """Pictures and figures of a trained captioner.

    Args:
        captioner: with the model of ``run``.
        generator: finds the masks that are described where nobody points at one.
        run: output folder of the training, with the predictions of its evaluation.
        train: name of the dataset that it learned from.
        held_out: name of the dataset on which it was evaluated.
    """
    (results,) = json.loads((run / "results.json").read_text()).values()
    trained = {name: value for name, value in results["captions"].items() if name != "regions"}
    references = [
        json.loads(line)["references"]
        for file in sorted(run.glob("predictions-*.jsonl"))
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    said = Counter(r["phrases"][0] for record in _records(train) for r in record["regions"])
    ((majority, _),) = said.most_common(1)
    scores = CaptionScorer(list(trained))([majority] * len(references), references).scores
    records = [record for record, _ in zip(_records(held_out), range(SHOWN), strict=False)]
    return Captions(
        regions=len(references),
        majority=majority,
        baseline={name: 100 * score.corpus for name, score in scores.items()},
        trained=trained,
        shown=Picture(
            _described_regions(captioner, records),
            "One region of each of the first held-out scenes: the mask that the model gives for "
            "its box, and the sentence. Where the sentence is wrong, what was drawn follows.",
        ),
        everything=[_described_scene(captioner, generator, record) for record in records[:4]],
    )


def _records(name: str) -> Iterator[dict[str, Any]]:
    rows = DatasetCatalog.get(name)
    return (rows[number] for number in range(len(rows)))


def _described_regions(captioner: RegionCaptioner, records: Sequence[dict[str, Any]]) -> np.ndarray:
    """A grid of scenes with one region each, drawn at random by a fixed seed."""
    rng = np.random.default_rng(0)
    panels, lines = [], []
    for record in records:
        region = record["regions"][int(rng.integers(len(record["regions"])))]
        image = np.array(LazyImage(record).decode())
        captioner.set_image(image)
        found = captioner.caption(boxes=[region["bbox"]])
        (said,), (truth, *_) = found.pred_captions, region["phrases"]
        masks = found.pred_masks.cpu().numpy()
        # In its own colours, on a pale picture.
        lit = np.where(masks[0][..., None], image, Visualizer(image).fade(0.85).image)
        panel = Visualizer(lit, 1.25).draw_masks(masks, alpha=0.0)
        panels.append(panel.draw_boxes([region["bbox"]], [distinct_color(0)]).image)
        lines.append(said if said == truth else f"{said} (drawn: {truth})")
    return draw_grid(panels, lines, COLUMNS)


def _described_scene(
    captioner: RegionCaptioner, generator: AutomaticMaskGenerator, record: dict[str, Any]
) -> Picture:
    """Masks that one model finds without a prompt, and what the other says of them."""
    image = np.array(LazyImage(record).decode())
    found = generator.generate(image)
    if not found:
        return Picture(image, "nothing found")
    captioner.set_image(image)
    captioner.caption_masks(found)
    labels = [""] * len(found)
    for i in np.argsort([-r["area"] for r in found], kind="stable"):
        if found[i]["caption"] not in labels and sum(map(bool, labels)) < MOST_LABELS:
            labels[i] = found[i]["caption"]
    masks = np.array([r["segmentation"] for r in found])
    picture = Visualizer(image, 3.0).draw_masks(masks, labels=labels, alpha=0.1).image
    return Picture(picture, f"{len(found)} masks, with the sentences of some")
