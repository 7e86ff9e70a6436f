"""Datasets, transforms, prompts and loaders."""

from .build import DATASET_MAPPER, build_test_loader, build_train_loader
from .catalog import DatasetCatalog, MetadataCatalog
from .datasets import builtin as _builtin  # registers the names of known datasets

__all__ = [
    "DATASET_MAPPER",
    "DatasetCatalog",
    "MetadataCatalog",
    "build_test_loader",
    "build_train_loader",
]
