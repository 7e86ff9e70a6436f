"""Write a trained segmenter as a folder of transformers, for ANNOTATION.CLOSED_SET.SEGMENTERS.

python projects/semantic_segmenter/export.py --config-file CONFIG OUT_DIR MODEL.WEIGHTS FILE.pth
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from transformers import SegformerImageProcessor

from semsam.checkpoint import load_weights
from semsam.config import CfgNode, load_cfg
from semsam.data import DatasetCatalog
from semsam.data.records import LazyImage
from semsam.data.transforms import ResizeShortestEdge
from semsam.modeling import build_model


def export(cfg: CfgNode, folder: str | Path) -> None:
    """Write the model with its processor, which resizes to what the evaluation makes of a photo.

    Args:
        cfg: of the training, with MODEL.WEIGHTS.
        folder: made if absent.

    Raises:
        ValueError: if no weights are named.
    """
    if not cfg.MODEL.WEIGHTS:
        raise ValueError("MODEL.WEIGHTS is empty: name the checkpoint to export")
    model: Any = build_model(cfg)
    load_weights(model, cfg.MODEL.WEIGHTS)
    record = DatasetCatalog.get(cfg.DATASETS.TRAIN[0])[0]
    resize = ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    height, width = resize(LazyImage(record).size).resized
    model.segformer.save_pretrained(folder)
    SegformerImageProcessor(
        size={"height": height, "width": width},
        image_mean=[value / 255 for value in cfg.MODEL.PIXEL_MEAN],
        image_std=[value / 255 for value in cfg.MODEL.PIXEL_STD],
    ).save_pretrained(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="yaml file of the training")
    parser.add_argument("folder", metavar="OUT_DIR", help="where the model goes")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides; also KEY=VALUE")
    arguments = parser.parse_intermixed_args()
    export(load_cfg(arguments.config_file, arguments.opts), arguments.folder)
