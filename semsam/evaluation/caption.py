"""How well the regions of a dataset are captioned; every prediction is kept in a file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from semsam.config import CfgNode, configurable
from semsam.utils import comm

from .build import EVALUATOR
from .caption_metrics import COLUMNS, CaptionScorer
from .evaluator import DatasetEvaluator, Results, gather_by_image
from .prediction_file import PredictionFile

logger = logging.getLogger(__name__)

TASK = "captions"
#: What a line of the file has, besides ``scores`` (of its masks) if the model gives them.
KEYS = ("image_id", "region_id", "references", "candidate")


@EVALUATOR.register
class CaptionEvaluator(DatasetEvaluator):
    """One caption a region against the region's references (SCA, section 4).

    Region captioning on Visual Genome has one reference a region. Generation of referring
    expressions on RefCOCO, RefCOCO+ and RefCOCOg is the same with all sentences of a ref as
    references and one candidate a ref; METEOR and CIDEr-D are its metrics.

    Args:
        scorer: computes the metrics.
        dataset_name: names the file of predictions.
        output_dir: where that file is written, see :class:`PredictionFile`.
        resume: read back what an interrupted evaluation has written, instead of deleting it. The
            predictions must be of the same model and dataset, which is not checked.
    """

    @configurable
    def __init__(
        self,
        scorer: CaptionScorer,
        dataset_name: str,
        output_dir: str | Path,
        resume: bool = False,
    ) -> None:
        self._scorer = scorer
        self._dataset_name = dataset_name
        self._file = PredictionFile(output_dir, f"predictions-{dataset_name}", KEYS)
        self._resume = resume
        # By image_id and region_id, a row of the file.
        self._rows: dict[tuple[Any, int], dict[str, Any]] = {}
        for name, reason in scorer.missing.items():
            logger.warning("%s will not be computed: %s", name, reason)

    @classmethod
    def from_config(cls, cfg: CfgNode, dataset_name: str) -> dict[str, Any]:
        """``TEST.CAPTION``, and ``OUTPUT_DIR`` for the file of predictions."""
        node = cfg.TEST.CAPTION
        return {
            "scorer": CaptionScorer(node.METRICS, node.SPICE_JARS, node.SPACY_MODEL),
            "dataset_name": dataset_name,
            "output_dir": cfg.OUTPUT_DIR,
            "resume": node.RESUME,
        }

    def reset(self) -> None:
        """Forget what was taken in, and delete the file or, to resume, read it.

        Raises:
            ValueError: if a line of the file is broken.
        """
        self._rows = {}
        for row in self._file.start(self._resume):
            self._rows.setdefault((row["image_id"], row["region_id"]), row)
        if self._rows:
            logger.info("%d regions were captioned before", len(self._rows))

    def pending(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Records with a region of which there is no prediction yet."""
        return [
            record
            for record in inputs
            if any((record["image_id"], int(i)) not in self._rows for i in record["region_ids"])
        ]

    def process(self, inputs: list[dict[str, Any]], outputs: list[Any]) -> None:
        """Take in a batch and write it; a region that is there already is left as it is.

        Args:
            inputs: ``file_name``, ``image_id``, ``region_ids`` (N ints) and ``references`` (N lists
                of str).
            outputs: ``instances`` with ``pred_captions`` (N str) and, if the model has them,
                ``scores`` (N, ...), which only go to the file.

        Raises:
            ValueError: if the numbers differ or a region has no reference; names the file.
        """
        new: dict[tuple[Any, int], dict[str, Any]] = {}
        for record, output in zip(inputs, outputs, strict=True):
            for row in _rows(record, output["instances"]):
                key = row["image_id"], row["region_id"]
                if key not in self._rows:
                    new.setdefault(key, row)
        self._file.append(new.values())
        self._rows |= new

    def evaluate(self) -> Results:
        """Task "captions": the metrics in percent (CIDEr-D times 100), and the number of regions.

        Logs them as a line in the order of the paper's tables, with what is missing and why.
        """
        rows = list(gather_by_image(self._rows).values())
        results: Results = {}
        if comm.is_main_process():
            candidates = [row["candidate"] for row in rows]
            found = self._scorer(candidates, [row["references"] for row in rows])
            metrics: dict[str, float] = {n: 100 * s.corpus for n, s in found.scores.items()}
            logger.info("%s\n%s", self._dataset_name, format_line(metrics, found.missing))
            results = {TASK: metrics | {"regions": len(rows)}}
        return comm.broadcast(results)


def format_line(metrics: dict[str, float], missing: dict[str, str]) -> str:
    """Metrics side by side, as in the paper's tables.

    Args:
        metrics: by column, in percent.
        missing: by column, why there is no value; shown as "-" and explained below.
    """
    cells = {
        name: f"{metrics[name]:.1f}" if name in metrics else "-"
        for name in COLUMNS
        if name in metrics or name in missing
    }
    widths = [max(len(name), len(cell)) for name, cell in cells.items()]
    lines = [
        "| " + " | ".join(map(str.rjust, values, widths)) + " |"
        for values in (cells, ["-" * width for width in widths], cells.values())
    ]
    return "\n".join([*lines, *(f"{name}: {reason}" for name, reason in missing.items())])


def _rows(record: dict[str, Any], instances: Any) -> Iterator[dict[str, Any]]:
    """A row of the file for each region of an image."""
    name, regions, references = record["file_name"], record["region_ids"], record["references"]
    captions = instances.pred_captions
    if not len(captions) == len(regions) == len(references):
        raise ValueError(
            f"'{name}': {len(captions)} captions, {len(regions)} region_ids and references of "
            f"{len(references)} regions; each region has one of each"
        )
    for i, (region, wanted, caption) in enumerate(zip(regions, references, captions, strict=True)):
        if not wanted:
            raise ValueError(f"'{name}': region {region} has no reference")
        row = {
            "image_id": record["image_id"],
            "region_id": int(region),
            "references": list(wanted),
            "candidate": caption,
        }
        if instances.has("scores"):
            row["scores"] = instances.scores[i].tolist()
        yield row
