"""The datasets that semsam knows by name; nothing is read until one is asked for.

A dataset elsewhere needs no entry here: ``sa1b_folder://DIR``, ``sa1b_tsv://DIR`` and
``coco_panoptic://ROOT?split=val2017`` are names as well.
"""

from __future__ import annotations

from functools import partial

from semsam.data.catalog import DatasetCatalog, MetadataCatalog, Records, datasets_root
from semsam.data.datasets.coco import load_coco_panoptic
from semsam.data.datasets.sa1b import Sa1bFolder, Sa1bTsv

_SA1B = {
    "mapper": "PromptableMapper",
    "evaluator_type": ("InteractiveEvaluator", "GranularityEvaluator"),
}
_COCO = {"mapper": "PromptableMapper", "evaluator_type": "InteractiveEvaluator"}

#: name -> type and place under ``$SEMSAM_DATASETS``.
_NAMES = {
    "sa1b_folder_train": "sa1b_folder://{root}/sa1b/train",
    "sa1b_folder_val": "sa1b_folder://{root}/sa1b/val",
    "sa1b_tsv_train": "sa1b_tsv://{root}/sa1b_tsv/train",
    "sa1b_tsv_val": "sa1b_tsv://{root}/sa1b_tsv/val",
    "coco_2017_train_panoptic_interactive": "coco_panoptic://{root}/coco?split=train2017",
    "coco_2017_val_panoptic_interactive": "coco_panoptic://{root}/coco?split=val2017",
}


def _records(url: str) -> Records:
    return DatasetCatalog.get(url.format(root=datasets_root()))


def _register() -> None:
    DatasetCatalog.register_type("sa1b_folder", Sa1bFolder, **_SA1B)
    DatasetCatalog.register_type("sa1b_tsv", Sa1bTsv, **_SA1B)
    DatasetCatalog.register_type("coco_panoptic", load_coco_panoptic, **_COCO)
    for name, url in _NAMES.items():
        DatasetCatalog.register(name, partial(_records, url))
        MetadataCatalog.get(name).set(**DatasetCatalog.metadata_of_type(url))


_register()
