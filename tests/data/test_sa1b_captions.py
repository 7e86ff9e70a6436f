import numpy as np
import pytest
from pycocotools import mask as coco_mask

from semsam.config import get_cfg
from semsam.data import DatasetCatalog
from semsam.data.datasets.sa1b_writer import make_annotation, write_pair
from semsam.data.mappers.caption import CaptionMapper
from semsam.data.records import BadRecordError


def write_scene(folder, **extra):
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    masks = np.zeros((2, 40, 60), bool)
    masks[0, 5:20, 10:30] = masks[1, 8:12, 15:25] = True
    annotations = [
        make_annotation(3, masks[0], caption="a red house", **extra),
        make_annotation(4, masks[1]),
    ]
    write_pair(folder, "scene_0", image, annotations)


def test_a_mask_with_a_sentence_is_a_region_with_its_box(tmp_path):
    write_scene(tmp_path)
    (record,) = list(map(DatasetCatalog.get(f"sa1b_captions://{tmp_path}").__getitem__, [0]))
    (region,) = record["regions"]
    assert coco_mask.area(region.pop("segmentation")) == 20 * 15
    assert region == {"region_id": 3, "bbox": [10.0, 5.0, 30.0, 20.0], "phrases": ["a red house"]}
    assert (record["height"], record["width"]) == (40, 60)


def test_a_scene_is_mapped_to_prompts_and_references(tmp_path):
    write_scene(tmp_path)
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 80, 200
    record = DatasetCatalog.get(f"sa1b_captions://{tmp_path}")[0]
    mapped = CaptionMapper(cfg, is_train=False)(record)
    assert mapped["references"] == [["a red house"]]
    assert mapped["prompts"].boxes[0].tolist() == [[20, 10, 60, 40]]


def test_a_damaged_mask_is_a_bad_record(tmp_path):
    write_scene(tmp_path)
    text = (tmp_path / "scene_0.json").read_text().replace('"size": [40, 60]', '"size": "none"')
    (tmp_path / "scene_0.json").write_text(text)
    with pytest.raises(BadRecordError, match="scene_0"):
        DatasetCatalog.get(f"sa1b_captions://{tmp_path}")[0]


def test_a_described_mask_without_a_pixel_is_a_bad_record(tmp_path):
    empty = coco_mask.encode(np.zeros((40, 60), np.uint8, order="F"))
    write_scene(tmp_path, segmentation={"size": [40, 60], "counts": empty["counts"].decode()})
    record = DatasetCatalog.get(f"sa1b_captions://{tmp_path}")[0]
    with pytest.raises(BadRecordError, match=r"scene_0.*region 3.*no area"):
        CaptionMapper(get_cfg(), is_train=False)(record)
