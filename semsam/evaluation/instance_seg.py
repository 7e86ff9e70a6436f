"""Instance segmentation: objects with a mask, a box, a class and a score."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from semsam.config import CfgNode, configurable
from semsam.data import MetadataCatalog
from semsam.data.datasets.regions import blame_row, index_images, read_json
from semsam.data.run_length import to_coco_code
from semsam.structures import Boxes, Instances
from semsam.utils import comm
from semsam.utils.file_io import write_json

from .average_precision import average_precision, average_precision_by_class, match_objects
from .build import EVALUATOR
from .evaluator import DatasetEvaluator, Results, format_table, gather_by_image
from .prediction_file import PredictionFile

logger = logging.getLogger(__name__)

#: What a line of a journal has: COCO's results of an image.
JOURNAL_KEYS = ("image_id", "objects")


@EVALUATOR.register
class COCOEvaluator(DatasetEvaluator):
    """AP of boxes and masks against a COCO-style json: COCO, LVIS, SegInW, parts of objects.

    All images of the json count, as everywhere else: in one that the model did not see nothing was
    found. What was found is left as a file in COCO's format for results.

    Args:
        json_file: of the ground truth.
        category_ids: the json's category id of each class that a model predicts.
        class_names: of all classes.
        groups: {metric: classes} of which the mean is reported, too.
        federated: LVIS's rules, see :func:`match_objects`; classes are not reported one by one.
        prediction_file: where the file of results is written; nowhere if None.
        journal: keeps what is found image by image, so that an evaluation can be resumed.
        resume: go on with what the journal has, instead of deleting it. It must be of the same
            model, which is not checked.

    Raises:
        FileNotFoundError: if the json is missing.
        ValueError: if it is damaged, has no object, or two classes have the same name.
    """

    @configurable
    def __init__(
        self,
        json_file: str | Path,
        category_ids: Mapping[int, int],
        class_names: Sequence[str],
        groups: Mapping[str, Sequence[int]] | None = None,
        federated: bool = False,
        prediction_file: str | Path | None = None,
        journal: PredictionFile | None = None,
        resume: bool = False,
    ) -> None:
        self._source = Path(json_file)
        truth = read_json(self._source, "images", "annotations", "categories")
        images = index_images(self._source, truth["images"], lambda row: (row["id"], self._source))
        self._sizes = {number: (row["height"], row["width"]) for number, row in images.items()}
        self._truth = _completed(self._source, truth, self._sizes)
        self._category_ids = dict(category_ids)
        known = sorted(row["id"] for row in self._truth["categories"])
        self._known = set(known)
        if sorted(self._category_ids.values()) != known:
            raise ValueError(
                f"'{json_file}' has other categories than the {len(category_ids)} given"
            )
        classes = {category: number for number, category in self._category_ids.items()}
        self._names = [class_names[classes[category]] for category in known]
        if twice := [name for name, count in Counter(self._names).items() if count > 1]:
            raise ValueError(f"two classes are called '{twice[0]}'; results go by name")
        has_masks = all("segmentation" in row for row in self._truth["annotations"])
        self._tasks = ("bbox", "segm") if has_masks else ("bbox",)
        # From numbers of classes to places among the json's categories by rising id.
        place = {classes[category]: number for number, category in enumerate(known)}
        self._groups = {
            metric: [place[number] for number in numbers]
            for metric, numbers in (groups or {}).items()
        }
        self._federated = federated
        self._prediction_file = prediction_file
        self._journal = journal
        self._resume = resume
        # COCO's results of each image.
        self._found: dict[Any, list[dict[str, Any]]] = {}

    @classmethod
    def from_config(cls, cfg: CfgNode, dataset_name: str) -> dict[str, Any]:
        """``json_file``, ``thing_dataset_id_to_contiguous_id`` and so on of the metadata.

        The file of results is ``OUTPUT_DIR/instances_predictions-NAME.json``, or what the metadata
        call ``prediction_file``.

        Raises:
            ValueError: if the metadata do not name a json and its classes.
        """
        return {
            **evaluator_arguments(dataset_name),
            "prediction_file": Path(cfg.OUTPUT_DIR) / prediction_file_name(dataset_name),
        }

    def reset(self) -> None:
        """Forget what was taken in, but for what is resumed.

        Raises:
            ValueError: if a line of the journal is broken.
        """
        rows = [] if self._journal is None else self._journal.start(self._resume)
        self._found = {row["image_id"]: row["objects"] for row in rows}
        if rows:
            logger.info("%d images were evaluated before", len(self._found))

    def pending(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Records of images that were not evaluated before the interruption."""
        if not self._resume:
            return inputs
        return [record for record in inputs if record["image_id"] not in self._found]

    def process(self, inputs: list[dict[str, Any]], outputs: list[Any]) -> None:
        """Take in a batch.

        Args:
            inputs: ``image_id`` and ``file_name``.
            outputs: ``instances`` in the photo's frame: ``pred_masks`` ((N, H, W) bool, or N COCO
                run-length codes), ``scores`` (N,), ``pred_classes`` (N,) and, if known,
                ``pred_boxes`` (N boxes, XYXY pixels), else those of the masks.

        Raises:
            ValueError: if the json lacks the image, a field is missing, a mask is not of the
                photo's size, a class is not known, or a score is no number; names the file.
        """
        for record, output in zip(inputs, outputs, strict=True):
            try:
                rows = self._results(record["image_id"], output["instances"])
            except (ValueError, AttributeError, KeyError) as error:
                reason = f"{type(error).__name__}: {error}"
                raise ValueError(f"'{record['file_name']}': {reason}") from error
            self._found[record["image_id"]] = rows
            if self._journal is not None:
                self._journal.append([{"image_id": record["image_id"], "objects": rows}])

    def evaluate(self) -> Results:
        """Tasks "bbox" and "segm", see :func:`average_precision`, and ``AP-NAME`` of each class.

        Where the objects of the json have no masks there is only "bbox".

        Raises:
            RuntimeError: if there was no image on any rank.
        """
        images = gather_by_image(self._found)
        results: Results = {}
        if comm.is_main_process():
            found = [row for rows in images.values() for row in rows]
            if self._prediction_file is not None:
                write_json(self._prediction_file, found, indent=None)
                logger.info("'%s': %d objects found", self._prediction_file, len(found))
            if missing := len(self._sizes.keys() - images.keys()):
                logger.warning(
                    "%d of %d images of '%s' were not seen: nothing counts as found there",
                    missing,
                    len(self._sizes),
                    self._source,
                )
            results = self._evaluate(found)
        return comm.broadcast(results)

    def evaluate_file(self, path: str | Path) -> Results:
        """As :meth:`evaluate`, of a json of COCO's results, such as an evaluation leaves.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is damaged or does not fit the ground truth; names file and row.
        """
        rows = read_json(Path(path))
        if not isinstance(rows, list):
            raise ValueError(f"'{path}' is no list of results")
        for number, row in enumerate(rows):
            try:
                self._check(row)
            except (ValueError, KeyError, TypeError) as error:
                reason = f"{type(error).__name__}: {error}"
                raise ValueError(f"'{path}': row {number}: {reason}") from error
        return self._evaluate([_with_box(row) for row in rows])

    def _evaluate(self, found: list[dict[str, Any]]) -> Results:
        results: Results = {}
        for task in self._tasks:
            precision = match_objects(self._truth, found, task, self._federated)
            results[task] = average_precision(precision, self._groups)
            classes = average_precision_by_class(precision, self._names)
            logger.info("'%s' by class, in percent:\n%s", task, format_table({"AP": classes}))
            if not self._federated:
                results[task] |= {f"AP-{name}": value for name, value in classes.items()}
        return results

    def _results(self, image_id: Any, found: Instances) -> list[dict[str, Any]]:
        """COCO's results of an image."""
        if image_id not in self._sizes:
            raise ValueError(f"'{self._source}' has no image {image_id}")
        codes = _encode(found.pred_masks, self._sizes[image_id])
        boxes = _boxes(found, codes)
        scores, classes = found.scores.tolist(), found.pred_classes.tolist()
        rows = []
        for code, box, score, number in zip(codes, boxes, scores, classes, strict=True):
            if number not in self._category_ids:
                raise ValueError(f"class {number} was predicted; '{self._source}' has none such")
            row = {
                "image_id": image_id,
                "category_id": self._category_ids[number],
                "bbox": box,
                "score": score,
                "segmentation": code,
            }
            self._check(row)
            rows.append(row)
        return rows

    def _check(self, row: dict[str, Any]) -> None:
        if row["image_id"] not in self._sizes:
            raise ValueError(f"'{self._source}' has no image {row['image_id']}")
        if row["category_id"] not in self._known:
            raise ValueError(f"'{self._source}' has no category {row['category_id']}")
        if not math.isfinite(row["score"]):
            raise ValueError(f"the score is {row['score']}")
        to_coco_code(row["segmentation"], self._sizes[row["image_id"]])


def evaluator_arguments(dataset_name: str) -> dict[str, Any]:
    """What a dataset's metadata say of the arguments of ``COCOEvaluator``.

    Raises:
        ValueError: if they do not name a json and its classes.
    """
    metadata = MetadataCatalog.get(dataset_name)
    needed = ("json_file", "thing_dataset_id_to_contiguous_id", "thing_classes")
    if missing := [key for key in needed if metadata.get(key) is None]:
        raise ValueError(
            f"dataset '{dataset_name}' does not say its {', '.join(missing)}; call "
            f"MetadataCatalog.get('{dataset_name}').set({missing[0]}=...)"
        )
    numbers = metadata.thing_dataset_id_to_contiguous_id
    return {
        "json_file": metadata.json_file,
        "category_ids": {number: category for category, number in numbers.items()},
        "class_names": metadata.thing_classes,
        "groups": metadata.get("category_groups"),
        "federated": metadata.get("federated", False),
    }


def prediction_file_name(dataset_name: str) -> str:
    """The name of a dataset's file of results."""
    stem = re.sub(r"[^\w.+-]+", "_", dataset_name)
    named = MetadataCatalog.get(dataset_name).get("prediction_file")
    return named or f"instances_predictions-{stem}.json"


def _completed(
    source: Path, truth: dict[str, Any], sizes: Mapping[Any, tuple[int, int]]
) -> dict[str, Any]:
    """The content of a json, with the area and the box of objects that lack them."""
    objects = []
    for number, row in enumerate(truth["annotations"]):
        with blame_row(source, "annotation", number):
            if "area" not in row or "bbox" not in row:
                code = to_coco_code(row["segmentation"], sizes[row["image_id"]])
                place = {"area": int(coco_mask.area(code)), "bbox": coco_mask.toBbox(code).tolist()}
                row = {**place, **row}
        objects.append(row)
    if all(row.get("iscrowd", 0) for row in objects):
        raise ValueError(f"'{source}' has no object: there is nothing to find")
    return {**truth, "annotations": objects}


def _encode(masks: Any, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Run-length codes, their counts as text, of bitmaps or codes of a photo of (H, W)."""
    if not isinstance(masks, (torch.Tensor, np.ndarray)):
        return [to_coco_code(code, size) for code in masks]
    bitmaps = masks.cpu().numpy() if isinstance(masks, torch.Tensor) else masks
    if bitmaps.dtype != np.bool_:
        raise ValueError(f"masks are bool, not {bitmaps.dtype}")
    if bitmaps.shape[1:] != tuple(size):
        raise ValueError(f"masks are {list(bitmaps.shape[1:])}, the photo {list(size)}")
    columns = np.asfortranarray(bitmaps.transpose(1, 2, 0), dtype=np.uint8)
    return [to_coco_code(code, size) for code in coco_mask.encode(columns)]


def _boxes(found: Instances, codes: list[dict[str, Any]]) -> list[list[float]]:
    """[x, y, w, h] of each object."""
    if not found.has("pred_boxes"):
        return [coco_mask.toBbox(code).tolist() for code in codes]
    boxes = found.pred_boxes
    corners = (boxes.tensor if isinstance(boxes, Boxes) else torch.as_tensor(boxes)).cpu().double()
    return torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1).tolist()


def _with_box(row: dict[str, Any]) -> dict[str, Any]:
    """A result that has a box; submissions leave it out."""
    if "bbox" in row:
        return row
    return {**row, "bbox": coco_mask.toBbox(row["segmentation"]).tolist()}
