"""The datasets that semsam knows by name; nothing is read until one is asked for.

A dataset elsewhere needs no entry here: ``sa1b_folder://DIR``, ``sa1b_tsv://DIR``,
``coco_panoptic://ROOT?split=val2017``, ``visual_genome://ROOT?split=test`` and so on are names too,
and ``shards://DIR`` is any of them as shards.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from semsam.data.catalog import DatasetCatalog, MetadataCatalog, Records, datasets_root
from semsam.data.datasets.coco_captions import load_coco_captions
from semsam.data.datasets.instances import (
    SEGINW_NAMES,
    describe_coco_instances,
    describe_coco_json,
    describe_lvis,
    describe_seginw,
    load_coco_instances,
    load_coco_json,
    load_lvis,
    load_seginw,
)
from semsam.data.datasets.panoptic import (
    describe_ade20k_panoptic,
    describe_coco_panoptic,
    load_ade20k_panoptic,
    load_coco_panoptic,
)
from semsam.data.datasets.parts import (
    describe_paco,
    describe_partimagenet,
    describe_parts,
    describe_pascal_part,
    load_paco,
    load_partimagenet,
    load_parts,
    load_pascal_part,
)
from semsam.data.datasets.refcoco import load_refcoco
from semsam.data.datasets.region_classes import (
    describe_objects365,
    load_coco_classes,
    load_objects365,
    load_v3det,
)
from semsam.data.datasets.sa1b import Sa1bFolder, Sa1bTar, Sa1bTsv
from semsam.data.datasets.sa1b_captions import Sa1bCaptions
from semsam.data.datasets.sem_seg import (
    load_ade20k,
    load_camvid,
    load_cityscapes,
    load_foggy_driving,
)
from semsam.data.datasets.shards import describe_shards, load_shards
from semsam.data.datasets.text_regions import TextRegionsTsv
from semsam.data.datasets.text_regions_tar import TextRegionsTar
from semsam.data.datasets.visual_genome import load_visual_genome
from semsam.data.label_maps import label_map

_SA1B: dict[str, Any] = {
    "mapper": "PromptableMapper",
    "evaluator_type": ("InteractiveEvaluator", "GranularityEvaluator"),
}
_COCO: dict[str, Any] = {"mapper": "PromptableMapper", "evaluator_type": "InteractiveEvaluator"}
_PANOPTIC: dict[str, Any] = {
    "mapper": "PhotoMapper",
    "evaluator_type": ("PanopticEvaluator", "COCOEvaluator", "SemSegEvaluator"),
    "ignore_label": 255,
}
#: Reader of the records, and of the metadata; the vocabulary.
_PANOPTIC_TYPES: dict[str, tuple[Callable[..., Records], Callable[..., dict[str, Any]], str]] = {
    "coco_panoptic_seg": (load_coco_panoptic, describe_coco_panoptic, "coco_panoptic"),
    "ade20k_panoptic": (load_ade20k_panoptic, describe_ade20k_panoptic, "ade20k"),
}
_INSTANCES: dict[str, Any] = {"mapper": "PhotoMapper", "evaluator_type": "COCOEvaluator"}
#: Reader of the records, and of the metadata; what else is known.
_INSTANCE_TYPES: dict[
    str, tuple[Callable[..., Records], Callable[..., dict[str, Any]], dict[str, Any]]
] = {
    "coco_instances": (load_coco_instances, describe_coco_instances, {"vocabulary": "coco"}),
    "coco_json": (load_coco_json, describe_coco_json, {}),
    "lvis": (load_lvis, describe_lvis, {"federated": True}),
    "seginw": (load_seginw, describe_seginw, {}),
    "parts": (load_parts, describe_parts, {"vocabulary": "parts"}),
    "paco": (load_paco, describe_paco, {"vocabulary": "paco", "federated": True}),
    "pascal_part": (load_pascal_part, describe_pascal_part, {"vocabulary": "pascal_part"}),
    "partimagenet": (load_partimagenet, describe_partimagenet, {"vocabulary": "partimagenet"}),
    "objects365_boxes": (load_objects365, describe_objects365, {"vocabulary": "objects365"}),
}
_REGIONS: dict[str, Any] = {"mapper": "CaptionMapper", "evaluator_type": "CaptionEvaluator"}
_REGION_TYPES: dict[str, Callable[..., Records]] = {
    "visual_genome": load_visual_genome,
    "refcoco": load_refcoco,
    "coco_classes": load_coco_classes,
    "objects365": load_objects365,
    "v3det": load_v3det,
    "coco_captions": load_coco_captions,
    "text_regions_tsv": TextRegionsTsv,
    "text_regions_tar": TextRegionsTar,
    "sa1b_captions": Sa1bCaptions,
}
_SEM_SEG: dict[str, Any] = {"mapper": "SemSegMapper", "evaluator_type": "SemSegEvaluator"}
#: Reader, and the label that does not count.
_SEM_SEG_TYPES: dict[str, tuple[Callable[..., Records], int]] = {
    "camvid": (load_camvid, 11),
    "ade20k": (load_ade20k, 255),
    "cityscapes": (load_cityscapes, 255),
    "foggy_driving": (load_foggy_driving, 255),
}

#: name -> type and place under ``$SEMSAM_DATASETS``.
_NAMES = {
    "sa1b_folder_train": "sa1b_folder://{root}/sa1b/train",
    "sa1b_folder_val": "sa1b_folder://{root}/sa1b/val",
    "sa1b_tar_train": "sa1b_tar://{root}/sa1b_tar/train",
    "sa1b_tar_val": "sa1b_tar://{root}/sa1b_tar/val",
    "sa1b_tsv_train": "sa1b_tsv://{root}/sa1b_tsv/train",
    "sa1b_tsv_val": "sa1b_tsv://{root}/sa1b_tsv/val",
    "coco_2017_train_panoptic_interactive": "coco_panoptic://{root}/coco?split=train2017",
    "coco_2017_val_panoptic_interactive": "coco_panoptic://{root}/coco?split=val2017",
    "coco_2017_train_panoptic": "coco_panoptic_seg://{root}/coco?split=train2017",
    "coco_2017_val_panoptic": "coco_panoptic_seg://{root}/coco?split=val2017",
    "coco_2017_train_instances": "coco_instances://{root}/coco?split=train2017",
    "coco_2017_val_instances": "coco_instances://{root}/coco?split=val2017",
    "ade20k_panoptic_train": "ade20k_panoptic://{root}/ADEChallengeData2016?split=train",
    "ade20k_panoptic_val": "ade20k_panoptic://{root}/ADEChallengeData2016?split=val",
    "lvis_v1_train": "lvis://{root}/lvis?split=v1_train",
    "lvis_v1_val": "lvis://{root}/lvis?split=v1_val",
    "lvis_v1_minival": "lvis://{root}/lvis?split=v1_minival",
    **{
        f"seginw_{name}_train": f"seginw://{{root}}/seginw/{name}?split=train"
        for name in SEGINW_NAMES
    },
    **{
        f"seginw_{name}_val": f"seginw://{{root}}/seginw/{name}?split=valid"
        for name in SEGINW_NAMES
    },
    "paco_train": "paco://{root}/paco?split=train",
    "paco_val": "paco://{root}/paco?split=val",
    "pascal_part_train": "pascal_part://{root}/pascal_part?split=train",
    "pascal_part_val": "pascal_part://{root}/pascal_part?split=val",
    "partimagenet_train": "partimagenet://{root}/partimagenet?split=train",
    "partimagenet_val": "partimagenet://{root}/partimagenet?split=val",
    "objects365_train": "objects365_boxes://{root}/objects365?split=train",
    "objects365_val": "objects365_boxes://{root}/objects365?split=val",
    "visual_genome_train": "visual_genome://{root}/visual_genome?split=train",
    "visual_genome_val": "visual_genome://{root}/visual_genome?split=val",
    "visual_genome_test": "visual_genome://{root}/visual_genome?split=test",
    "visual_genome_tsv_train": "shards://{root}/visual_genome_tsv/train",
    "visual_genome_tsv_test": "shards://{root}/visual_genome_tsv/test",
    "generated_tsv_train": "text_regions_tsv://{root}/generated_tsv/train",
    "generated_tar_train": "text_regions_tar://{root}/generated_tar/train",
    "refcoco_unc_val": "refcoco://{root}/refer/refcoco?split=val",
    "refcoco_unc_testA": "refcoco://{root}/refer/refcoco?split=testA",
    "refcoco_unc_testB": "refcoco://{root}/refer/refcoco?split=testB",
    "refcoco+_unc_val": "refcoco://{root}/refer/refcoco+?split=val",
    "refcoco+_unc_testA": "refcoco://{root}/refer/refcoco+?split=testA",
    "refcoco+_unc_testB": "refcoco://{root}/refer/refcoco+?split=testB",
    "refcocog_umd_val": "refcoco://{root}/refer/refcocog?by=umd&split=val",
    "refcocog_umd_test": "refcoco://{root}/refer/refcocog?by=umd&split=test",
    "refcocog_google_val": "refcoco://{root}/refer/refcocog?by=google&split=val",
    "coco_2017_train_captions": "coco_captions://{root}/coco?split=train2017",
    "coco_2017_val_captions": "coco_captions://{root}/coco?split=val2017",
    "coco_2017_train_classes": "coco_classes://{root}/coco?split=train2017",
    "coco_2017_val_classes": "coco_classes://{root}/coco?split=val2017",
    "objects365_train_classes": "objects365://{root}/objects365?split=train",
    "objects365_val_classes": "objects365://{root}/objects365?split=val",
    "objects365_tsv_train_classes": "shards://{root}/objects365_tsv/train",
    "v3det_train_classes": "v3det://{root}/v3det?split=train",
    "v3det_val_classes": "v3det://{root}/v3det?split=val",
    "camvid_train": "camvid://{root}/camvid?split=train",
    "camvid_val": "camvid://{root}/camvid?split=val",
    "camvid_test": "camvid://{root}/camvid?split=test",
    "ade20k_train": "ade20k://{root}/ADEChallengeData2016?split=training",
    "ade20k_val": "ade20k://{root}/ADEChallengeData2016?split=validation",
    "cityscapes_val": "cityscapes://{root}/cityscapes?split=val",
    "foggy_driving_test": "foggy_driving://{root}/foggy_driving?split=test",
}


def _records(url: str) -> Records:
    return DatasetCatalog.get(url.format(root=datasets_root()))


def _describe(url: str) -> dict[str, Any]:
    return DatasetCatalog.describe(url.format(root=datasets_root()))


def _register() -> None:
    DatasetCatalog.register_type("sa1b_folder", Sa1bFolder, **_SA1B)
    DatasetCatalog.register_type("sa1b_tar", Sa1bTar, **_SA1B)
    DatasetCatalog.register_type("sa1b_tsv", Sa1bTsv, **_SA1B)
    DatasetCatalog.register_type("shards", load_shards, describe_shards)
    DatasetCatalog.register_type("coco_panoptic", load_coco_panoptic, **_COCO)
    for scheme, (load, describe, vocabulary) in _PANOPTIC_TYPES.items():
        DatasetCatalog.register_type(scheme, load, describe, **_PANOPTIC, vocabulary=vocabulary)
    for scheme, (load, describe, more) in _INSTANCE_TYPES.items():
        DatasetCatalog.register_type(scheme, load, describe, **_INSTANCES, **more)
    for scheme, load in _REGION_TYPES.items():
        DatasetCatalog.register_type(scheme, load, **_REGIONS)
    for scheme, (read, ignore_label) in _SEM_SEG_TYPES.items():
        classes: dict[str, Any] = {
            "stuff_classes": list(label_map(scheme).values()),
            "vocabulary": scheme,
            "ignore_label": ignore_label,
        }
        DatasetCatalog.register_type(scheme, read, **_SEM_SEG, **classes)
    for name, url in _NAMES.items():
        DatasetCatalog.register(name, partial(_records, url))
        metadata = MetadataCatalog.get(name).set(**DatasetCatalog.metadata_of_type(url))
        metadata.set_lazily(partial(_describe, url))


_register()
