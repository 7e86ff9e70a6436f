"""The registry of mappers, its contract, and the loaders built from a configuration."""

from __future__ import annotations

import logging
import resource
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from semsam.config import CfgNode
from semsam.data.catalog import DatasetCatalog, MetadataCatalog, Records
from semsam.data.loader import SteadyLoader
from semsam.data.records import BadRecordError
from semsam.data.samplers import InferenceSampler, TrainingSampler
from semsam.utils import comm
from semsam.utils.registry import Registry

DATASET_MAPPER = Registry("DATASET_MAPPER")
"""``cls(cfg, is_train)``; ``__call__(dict)`` -> dict with ``image``, ``prompts``, ``height``,
``width``; in training ``instances`` and ``targets``, in evaluation what the evaluators of its
datasets ask for. In training ``record["rng"]``, a ``numpy.random.Generator``, is the only source of
randomness; a record that cannot be used raises BadRecordError."""

Mapper = Callable[[dict[str, Any]], dict[str, Any]]

#: Rows that a worker counts as read from the start, so that one early bad row is no large share.
_MIN_ROWS_READ = 100
#: So many bad rows one after the other are no chance: a folder of images is gone.
_MAX_BAD_IN_A_ROW = 100

logger = logging.getLogger(__name__)


def build_train_loader(cfg: CfgNode, start_sample: int = 0) -> SteadyLoader:
    """An endless loader of this rank's micro-batches, each a list of mapped records.

    What a sample is depends on SEED and on its position in the stream, not on the number of ranks
    or workers, so a run continues exactly where it stopped, and loading where a worker was lost.

    Args:
        cfg: DATASETS.TRAIN, INPUT, DATALOADER, SEED, MODEL.EMBEDDING_CACHE, and IMS_PER_BATCH and
            GRAD_ACCUMULATION of SOLVER.
        start_sample: samples that all ranks together have used before.

    Raises:
        ValueError: if no dataset is named, IMS_PER_BATCH cannot be divided evenly, or images vary
            from epoch to epoch although their embeddings are to be cached.
        FileNotFoundError: if a file of a dataset is missing.
    """
    if not cfg.DATASETS.TRAIN:
        raise ValueError("DATASETS.TRAIN is empty; name a dataset to train on")
    if cfg.MODEL.EMBEDDING_CACHE:
        _check_images_stay(cfg.INPUT)
    rank, world_size = comm.get_rank(), comm.get_world_size()
    total, parts = cfg.SOLVER.IMS_PER_BATCH, world_size * cfg.SOLVER.GRAD_ACCUMULATION
    if total < 1 or total % parts:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH is {total}; it must be a multiple of {parts} "
            f"({world_size} processes x GRAD_ACCUMULATION {cfg.SOLVER.GRAD_ACCUMULATION})"
        )
    seed = cfg.SEED if cfg.SEED >= 0 else comm.broadcast(secrets.randbits(32))
    sources = [(DatasetCatalog.get(name), _mapper(cfg, name, True)) for name in cfg.DATASETS.TRAIN]
    rows = TrainingRows(sources, seed, cfg.DATALOADER.MAX_BAD_FRACTION)
    sizes = [_shard_sizes(records) for records, _ in sources]
    batch_size = total // parts

    def loader(taken: int) -> DataLoader:
        sampler = TrainingSampler(
            sizes,
            seed,
            rank,
            world_size,
            start_sample + taken * batch_size * world_size,
            cfg.DATASETS.TRAIN_SHARES,
            cfg.DATALOADER.SHARDS_AT_ONCE,
        )
        return _loader(cfg, rows, sampler, batch_size)

    loader(0)  # its errors come now
    _allow_many_files()
    return SteadyLoader(loader)


def build_test_loader(cfg: CfgNode, name: str) -> EvaluationLoader:
    """A loader of this rank's share of a dataset, one mapped record a batch.

    Args:
        cfg: INPUT and DATALOADER.
        name: dataset; a registered name or ``scheme://PATH``.

    Raises:
        ValueError: if there is no such dataset.
        FileNotFoundError: if a file of the dataset is missing.
    """
    rows = EvaluationRows(DatasetCatalog.get(name), _mapper(cfg, name, False))
    own = InferenceSampler(len(rows), comm.get_rank(), comm.get_world_size()).rows
    loader = SteadyLoader(lambda taken: _loader(cfg, rows, own[taken:], 1))
    return EvaluationLoader(loader, len(own), name)


def _loader(
    cfg: CfgNode, rows: Dataset, sampler: Sampler | Sequence[int], batch_size: int
) -> DataLoader:
    workers = cfg.DATALOADER.NUM_WORKERS
    return DataLoader(
        rows,
        batch_size=batch_size,
        sampler=sampler,
        collate_fn=list,
        num_workers=workers,
        timeout=cfg.DATALOADER.TIMEOUT if workers else 0,
        # A generator of its own: iterating must not move the global one.
        generator=torch.Generator().manual_seed(0),
    )


def _check_images_stay(node: CfgNode) -> None:
    """Raise ValueError if the jitter of INPUT makes another image of a photo in every epoch."""
    low, high, flip, colors = (
        node[key] for key in ("MIN_SCALE", "MAX_SCALE", "FLIP_PROB", "COLOR_JITTER")
    )
    # Above 1 the crop is random.
    if low != high or high > 1 or flip or colors:
        raise ValueError(
            "MODEL.EMBEDDING_CACHE needs images that are the same in every epoch: set "
            "INPUT.MIN_SCALE and INPUT.MAX_SCALE to 1.0 (or to one value below), INPUT.FLIP_PROB "
            f"and INPUT.COLOR_JITTER to 0.0; they are {low}, {high}, {flip} and {colors}"
        )


def _shard_sizes(records: Records) -> Sequence[int]:
    """Rows of each shard; a dataset that has none is one."""
    return getattr(records, "shard_sizes", [len(records)])


def _allow_many_files() -> None:
    """Raise the limit of open files: each tensor on its way from a worker is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _mapper(cfg: CfgNode, name: str, is_train: bool) -> Mapper:
    """The mapper that the dataset's metadata names."""
    from . import mappers  # noqa: F401  (fills the registry)

    key = MetadataCatalog.get(name).get("mapper")
    if key is None:
        raise ValueError(
            f"dataset '{name}' has no mapper; call MetadataCatalog.get('{name}').set(mapper=...) "
            f"with one of: {', '.join(DATASET_MAPPER)}"
        )
    mapper = DATASET_MAPPER.get(key)(cfg, is_train)
    # Models without names do not ask for all that is in an image.
    if cfg.MODEL.NAMING.VOCABULARIES and (classes := _classes(name)):
        return partial(_map_named, mapper, classes)
    return mapper


def _classes(name: str) -> dict[str, Any]:
    """What a model that names masks is told of a dataset's classes; nothing if it has none.

    Returns:
        ``vocabulary``, its name, and ``is_thing`` and ``is_part``, a bool a class.
    """
    metadata = MetadataCatalog.get(name)
    vocabulary = metadata.get("vocabulary")
    if vocabulary is None:
        return {}
    number = len(metadata.get("stuff_classes") or metadata.thing_classes)
    things = metadata.get("thing_dataset_id_to_contiguous_id", {}).values()
    return {
        "vocabulary": vocabulary,
        "is_thing": [row in things for row in range(number)],
        "is_part": metadata.get("is_part", [False] * number),
    }


def _map_named(mapper: Mapper, classes: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    return {**mapper({**record, **classes}), **classes}


class TrainingRows(Dataset):
    """Mapped rows of one or more datasets; a bad row is logged, counted and replaced by another.

    The other is one of the same dataset, so that the shares of datasets stay.

    Args:
        sources: records and mapper of each dataset.
        seed: of the draws of all samples.
        max_bad_fraction: greatest share of bad rows among those read, a worker.
    """

    def __init__(
        self, sources: Sequence[tuple[Records, Mapper]], seed: int, max_bad_fraction: float
    ) -> None:
        self.sources = sources
        self.seed = seed
        self.max_bad_fraction = max_bad_fraction
        self.num_read = 0
        self.num_bad = 0
        self.num_bad_in_a_row = 0
        self._ends = np.cumsum([len(records) for records, _ in sources])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Any]:
        """Map a row; ``item`` is (position in the stream, row).

        Raises:
            RuntimeError: if more than the allowed share of the rows read so far was bad.
        """
        position, row = item
        rng = np.random.default_rng((self.seed, position))
        while True:
            self.num_read += 1
            number = int(np.searchsorted(self._ends, row, side="right"))
            records, mapper = self.sources[number]
            first = int(self._ends[number]) - len(records)
            try:
                record = records[row - first]
                mapped = mapper({**record, "rng": rng})
                self.num_bad_in_a_row = 0
                return mapped
            except BadRecordError as error:
                self._count_bad(error)
            row = first + int(rng.integers(len(records)))

    def _count_bad(self, error: BadRecordError) -> None:
        self.num_bad += 1
        self.num_bad_in_a_row += 1
        logger.warning("row skipped (%d of %d): %s", self.num_bad, self.num_read, error)
        allowed = self.max_bad_fraction * max(self.num_read, _MIN_ROWS_READ)
        if self.num_bad > allowed or self.num_bad_in_a_row == _MAX_BAD_IN_A_ROW:
            raise RuntimeError(
                f"{self.num_bad} of {self.num_read} rows read were unusable, the last one because: "
                f"{error}. {self.num_bad_in_a_row} came one after the other. Repair the data, or "
                f"raise DATALOADER.MAX_BAD_FRACTION ({self.max_bad_fraction})."
            ) from error


class EvaluationRows(Dataset):
    """Mapped rows of a dataset; None stands for a bad one."""

    def __init__(self, records: Records, mapper: Mapper) -> None:
        self.records = records
        self.mapper = mapper

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, row: int) -> dict[str, Any] | None:
        """Map a row, or log why it cannot be used."""
        try:
            return self.mapper(self.records[row])
        except BadRecordError as error:
            logger.warning("row left out of the evaluation: %s", error)
            return None


class EvaluationLoader:
    """Batches of one mapped record; bad rows are left out, and their number logged at the end.

    Attributes:
        num_bad: rows left out by the iteration that ended last.
    """

    def __init__(self, loader: Iterable[list[Any]], num_rows: int, name: str) -> None:
        self._loader = loader
        self._num_rows = num_rows
        self._name = name
        self.num_bad = 0

    def __len__(self) -> int:
        """Batches of this rank, bad rows included."""
        return self._num_rows

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        self.num_bad = 0
        for batch in self._loader:
            if batch[0] is None:
                self.num_bad += 1
            else:
                yield batch
        if self.num_bad:
            logger.warning("'%s': %d of %d rows left out", self._name, self.num_bad, self._num_rows)
