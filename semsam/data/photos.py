"""Decoded photos of a dataset, for evaluations that prompt a model themselves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from semsam.data.catalog import DatasetCatalog
from semsam.data.records import BadRecordError, LazyImage
from semsam.data.samplers import InferenceSampler
from semsam.utils import comm

logger = logging.getLogger(__name__)

#: Record and (height, width) of its photo -> further keys of the record.
Annotate = Callable[[dict[str, Any], tuple[int, int]], dict[str, Any]]


class Photos:
    """This rank's records of a dataset, each with its ``photo``, in batches of one.

    A record that cannot be read is named in the log and left out.

    Args:
        dataset: registered name or ``scheme://PATH``.
        annotate: reads what else is wanted of a record; a BadRecordError leaves the record out.

    Raises:
        ValueError: if there is no such dataset.
        FileNotFoundError: if a file of the dataset is missing.
    """

    def __init__(self, dataset: str, annotate: Annotate | None = None) -> None:
        self.dataset = dataset
        self.records = DatasetCatalog.get(dataset)
        self.rows = InferenceSampler(len(self.records), comm.get_rank(), comm.get_world_size())
        self.annotate = annotate

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        """``photo`` is (H, W, 3) uint8 RGB."""
        for row in self.rows:
            try:
                yield [self._read(row)]
            except BadRecordError as error:
                logger.warning("row left out of the evaluation: %s", error)

    def _read(self, row: int) -> dict[str, Any]:
        record = self.records[row]
        image = LazyImage(record)
        more = self.annotate(record, image.size) if self.annotate else {}
        return {**record, "photo": np.array(image.decode()), **more}
