import torch

from semsam.config import get_cfg
from semsam.data import DatasetCatalog
from semsam.data.records import decode_annotations, decode_labels, decode_segments
from semsam.evaluation import build_evaluator
from tests.data.joint_files import SIZE, write_ade20k, write_paco
from tests.evaluation.coco_files import feed, instances


def all_of(record):
    truth = decode_annotations(record, SIZE)
    labels = torch.from_numpy(decode_labels(record))
    scores = torch.stack([(labels == number).float() for number in range(3)])
    things = truth.classes == 1
    found = instances(
        truth.masks.decode()[things], [0.9] * things.sum(), truth.classes[things], SIZE
    )
    segments = [{"id": s["id"], "category_id": s["category_id"]} for s in record["segments_info"]]
    panoptic = torch.from_numpy(decode_segments(record)), segments
    return {"sem_seg": scores, "instances": found, "panoptic_seg": panoptic}


def test_a_perfect_model_has_a_hundred_in_the_three_tables_of_ade20k(tmp_path):
    write_ade20k(tmp_path, "val")
    name = f"ade20k_panoptic://{tmp_path}"
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    evaluator = build_evaluator(cfg, name)
    for record in DatasetCatalog.get(name):
        evaluator.process([record], [all_of(record)])
    results = evaluator.evaluate()
    assert round(results["panoptic_seg"]["PQ"], 6) == 100
    assert round(results["segm"]["AP"], 6) == round(results["bbox"]["AP"], 6) == 100
    assert round(results["sem_seg"]["mIoU"], 6) == 100


def test_parts_and_wholes_of_paco_are_evaluated_apart(tmp_path):
    write_paco(tmp_path / "paco", tmp_path / "coco")
    name = f"paco://{tmp_path}/paco?split=train"
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    results = feed(build_evaluator(cfg, name), DatasetCatalog.get(name))
    for task in ("bbox", "segm"):
        assert round(results[task]["AP parts"], 6) == 100
        # One car has no mask to be found by.
        assert 50 < results[task]["AP wholes"] < 100
