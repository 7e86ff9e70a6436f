import torch

from semsam.config import get_cfg
from semsam.data import DatasetCatalog
from semsam.data.records import decode_annotations, decode_labels, decode_segments
from semsam.evaluation import build_evaluator
from tests.data.joint_files import SIZE, write_ade20k
from tests.evaluation.coco_files import instances


def perfect(record):
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


def test_a_perfect_model_has_a_hundred_in_the_three_tables(tmp_path):
    write_ade20k(tmp_path, "val")
    name = f"ade20k_panoptic://{tmp_path}"
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    evaluator = build_evaluator(cfg, name)
    for record in DatasetCatalog.get(name):
        evaluator.process([record], [perfect(record)])
    results = evaluator.evaluate()
    assert round(results["panoptic_seg"]["PQ"], 6) == 100
    assert round(results["segm"]["AP"], 6) == round(results["bbox"]["AP"], 6) == 100
    assert round(results["sem_seg"]["mIoU"], 6) == 100
