import io

import numpy as np
import pytest
import torch
from PIL import Image

from semsam.config import get_cfg
from semsam.data.click_choice import choose_click
from semsam.data.mappers import PromptableMapper
from semsam.data.records import BadRecordError, LazyImage
from semsam.structures import masks_to_boxes
from tests.data.sa1b_files import SIZE, annotations_of, nested_masks


def make_record(masks=None, image_size=SIZE, clicks=True, **more):
    """A record with an image of noise; ``image_size`` (H, W)."""
    encoded = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (*image_size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(encoded, "png")
    annotations = annotations_of(nested_masks(image_size) if masks is None else masks)
    if not clicks:
        for annotation in annotations:
            del annotation["point_coords"]
    return {
        "file_name": "noise",
        "image_id": 5,
        "image_bytes": encoded.getvalue(),
        "annotations": annotations,
        "rng": np.random.default_rng(1),
        **more,
    }


def make_mapper(is_train, **values):
    cfg = get_cfg()
    cfg.INPUT.IMAGE_SIZE = 64
    cfg.INPUT.NUM_PROMPTS = 8
    cfg.INPUT.MIN_SIZE_TEST = 80
    for key, value in values.items():
        cfg.INPUT[key] = value
    return PromptableMapper(cfg, is_train)


def test_training_gives_a_square_with_prompts_inside_their_masks():
    record = make_mapper(True, PROMPT_NOISE=0.0)(make_record())
    assert record["image"].shape == (3, 64, 64)
    assert record["image"].dtype == torch.uint8
    assert (record["height"], record["width"]) == (64, 64)
    masks, targets = record["instances"].gt_masks, record["targets"]
    assert torch.equal(record["instances"].gt_boxes.tensor, masks_to_boxes(masks))
    points = record["prompts"].points[0, :, 0].long()
    for (x, y), seed, levels in zip(points, targets.seeds, targets.levels, strict=True):
        assert masks[seed, y, x]
        assert levels[levels >= 0].tolist() == masks[:, y, x].nonzero().flatten().tolist()


def test_colours_vary_in_training_only():
    plain, colored = (make_mapper(True, COLOR_JITTER=share)(make_record()) for share in (0.0, 0.5))
    assert not torch.equal(plain["image"], colored["image"])
    assert plain["image"].shape == colored["image"].shape
    plain, colored = (make_mapper(False, COLOR_JITTER=share)(make_record()) for share in (0.0, 0.5))
    assert torch.equal(plain["image"], colored["image"])


def test_masks_that_no_prompt_needs_are_not_decoded():
    columns = np.eye(20, dtype=bool)[:, None].repeat(20, axis=1)
    annotations = make_record(columns, image_size=(20, 20))
    for index, annotation in enumerate(annotations["annotations"]):
        annotation["category_id"] = index
    mapper = make_mapper(True, NUM_PROMPTS=4, FLIP_PROB=0.0, PROMPT_NOISE=0.0)
    record = mapper(annotations)
    instances, targets = record["instances"], record["targets"]
    assert len(instances) == 4
    assert sorted(targets.seeds.tolist()) == [0, 1, 2, 3]
    assert targets.levels[:, 0].tolist() == targets.seeds.tolist()
    # A mask is a column, so its class says where its click must be.
    expected = instances.gt_classes[targets.seeds] * 64 / 20
    assert (record["prompts"].points[0, :, 0, 0] - expected).abs().max() < 64 / 20 + 1


def test_equal_generators_give_equal_records():
    first, second = (make_mapper(True)(make_record()) for _ in range(2))
    assert torch.equal(first["image"], second["image"])
    assert torch.equal(first["prompts"].points, second["prompts"].points)


def test_evaluation_clicks_where_the_dataset_says():
    record = make_mapper(False)(make_record())
    assert record["image"].shape == (3, 80, 120)
    assert record["instances"].gt_masks.shape == (3, 80, 120)
    assert (record["height"], record["width"]) == (80, 120)
    assert record["original_size"] == SIZE
    assert record["prompts"].points[0, :, 0].tolist() == [[8, 8], [16, 16], [68, 48]]
    # The second click lies in the first mask as well; the first one lies outside the second.
    assert record["targets"].levels.tolist() == [[0, -1], [0, 1], [2, -1]]
    assert record["targets"].seeds.tolist() == [0, 1, 2]


def test_evaluation_clicks_inside_the_mask_where_the_dataset_says_nothing():
    record = make_mapper(False)(make_record(clicks=False))
    expected = [list(choose_click(mask.numpy())) for mask in record["instances"].gt_masks]
    assert record["prompts"].points[0, :, 0].tolist() == expected


def test_a_jpeg_is_decoded_small_in_training_only(tmp_path):
    gradient = np.linspace(0, 255, 400).astype(np.uint8)
    Image.fromarray(np.tile(gradient[:, None, None], (1, 640, 3))).save(tmp_path / "x.jpg")
    record = {"file_name": str(tmp_path / "x.jpg"), "image_id": 0}
    assert LazyImage(record).decode((60, 96)).size == (160, 100)
    assert LazyImage(record).decode().size == (640, 400)
    record |= {"annotations": annotations_of(nested_masks((400, 640)))}
    with_draft, without = (
        make_mapper(True, JPEG_DRAFT=draft)({**record, "rng": np.random.default_rng(0)})
        for draft in (True, False)
    )
    difference = (with_draft["image"].int() - without["image"].int()).abs()
    assert 0 < difference.max() < 20
    assert torch.equal(with_draft["instances"].gt_masks, without["instances"].gt_masks)


def test_an_image_that_lies_on_its_side_is_turned(tmp_path):
    image = Image.fromarray(np.zeros((20, 30, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "x.jpg", exif=exif)
    lazy = LazyImage({"file_name": str(tmp_path / "x.jpg")})
    assert lazy.size == (30, 20)
    assert lazy.decode().size == (20, 30)


def truncated():
    record = make_record()
    return {**record, "image_bytes": record["image_bytes"][:-200]}


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize(
    "record",
    [
        truncated(),
        make_record(image_bytes=b"text"),
        make_record(np.zeros((0, *SIZE), dtype=bool)),
        make_record(np.zeros((2, *SIZE), dtype=bool)),
        make_record(np.ones((1, 20, 20), dtype=bool)),
        make_record(annotations=[{"segmentation": {"size": SIZE, "counts": "zz"}}]),
        make_record(annotations=[{"segmentation": [[1, 2, 3, 4]]}]),
        {"file_name": "nowhere.jpg", "image_id": 0, "annotations": []},
    ],
    ids=["truncated", "no-image", "no-masks", "empty", "size", "code", "polygon", "missing"],
)
def test_what_cannot_be_used_is_a_bad_record(is_train, record):
    with pytest.raises(BadRecordError, match=record["file_name"]):
        make_mapper(is_train)(record)


def test_an_empty_mask_among_others_is_dropped():
    masks = nested_masks()
    masks[1] = False
    record = make_mapper(False)(make_record(masks))
    assert len(record["instances"]) == 2
    assert len(record["prompts"].points[0]) == 2


def test_the_share_of_boxes_is_a_share():
    with pytest.raises(ValueError, match="0 to 1"):
        make_mapper(True, BOX_PROMPT_RATIO=1.5)
